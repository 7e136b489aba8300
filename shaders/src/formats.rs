//! How weights lie on the device: planes of one buffer, the integers of all rows in the first, scales in the others, so that
//! neighbouring invocations read neighbouring bytes. One row of [`LAYOUTS`] (`pack.rs`) is one file in
//! `wgsl/formats`.
//!
//! A run is 32 values of a row. Rows of the float formats are filled up with zeros to whole runs.

use cchaha_plan::Format;

pub use crate::pack::LAYOUTS;

/// Values in a run.
pub(crate) const RUN: usize = 32;

/// Values in the longest block of any format, and runs with a scale of their own in it.
const MAX_BLOCK: usize = 256;
const MAX_SUBS: usize = 16;

/// Planes of a layout, at most: as many as kernels have immediates for.
const MAX_PLANES: usize = 4;

/// Splits a block into integers, scales and offsets: `value[i] = scale[i / sub] * q[i] + offset[i / sub]`.
pub type Unpack = fn(&[u8], &mut [i8], &mut [f32], &mut [f32]);

/// How the blocks of a quantized format are read. The engine gives it, so that formats are described in one place.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    /// Values that share a scale and an offset: 16 or 32.
    pub sub: usize,
    /// See [`Unpack`].
    pub unpack: Unpack,
}

/// [`Blocks`] of a format; `None` for the float formats.
pub type Decode = fn(Format) -> Option<Blocks>;

/// A block taken apart.
pub(crate) struct Unpacked<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) q: &'a [i8],
    pub(crate) scale: &'a [f32],
    pub(crate) offset: &'a [f32],
    pub(crate) sub: usize,
}

/// Bytes of a plane for every so many runs of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plane {
    pub(crate) runs: usize,
    pub(crate) bytes: usize,
}

/// How blocks go into planes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pack {
    /// Values as they are in the file.
    Values,
    /// Writes one block; the slices are its parts of the planes.
    Block(fn(&Unpacked<'_>, &mut [&mut [u8]])),
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// As `cchaha-run kernels` prints it.
    pub name: &'static str,
    /// Formats it can hold without loss.
    pub formats: &'static [Format],
    pub(crate) module: &'static str,
    pub(crate) planes: &'static [Plane],
    pub(crate) pack: Pack,
}

impl Layout {
    /// The first layout for a format whose name is `preferred`, or the first at all.
    pub(crate) fn of(format: Format, preferred: Option<&str>) -> Option<&'static Layout> {
        let mut fits = LAYOUTS.iter().filter(|layout| layout.formats.contains(&format));
        let named = preferred.and_then(|name| fits.clone().find(|layout| layout.name == name));
        named.or_else(|| fits.next())
    }

    /// Bytes of plane `p` for `rows` rows of `runs` runs.
    pub(crate) fn plane_bytes(&self, p: usize, rows: usize, runs: usize) -> usize {
        let Plane { runs: per, bytes } = self.planes[p];
        rows * runs / per * bytes
    }

    /// Where the planes of a matrix begin and the size of it all, in bytes; planes begin at multiples of 16.
    pub(crate) fn offsets(&self, rows: usize, runs: usize) -> ([usize; MAX_PLANES], usize) {
        let (mut offsets, mut at) = ([0; MAX_PLANES], 0);
        for (p, offset) in offsets.iter_mut().enumerate().take(self.planes.len()) {
            *offset = at;
            at += self.plane_bytes(p, rows, runs).next_multiple_of(16);
        }
        (offsets, at)
    }

    /// Packs one row, whose first run is number `first_run` of the planes.
    pub(crate) fn pack_row(
        &self,
        format: Format,
        decode: Decode,
        row: &[u8],
        first_run: usize,
        planes: &mut [Vec<u8>],
    ) {
        let Pack::Block(pack) = self.pack else {
            planes[0][first_run * self.planes[0].bytes..][..row.len()].copy_from_slice(row);
            return;
        };
        let blocks = decode(format).expect("invariant: block formats have blocks");
        let (len, size) = (format.block_len(), format.block_bytes());
        let (mut q, mut scale, mut offset) = ([0; MAX_BLOCK], [0.0; MAX_SUBS], [0.0; MAX_SUBS]);
        let subs = len / blocks.sub;
        for (b, bytes) in row.chunks_exact(size).enumerate() {
            (blocks.unpack)(bytes, &mut q[..len], &mut scale[..subs], &mut offset[..subs]);
            let run = first_run + b * len / RUN;
            let mut rest = planes.iter_mut();
            let mut parts: [&mut [u8]; MAX_PLANES] = Default::default();
            for (plane, part) in self.planes.iter().zip(&mut parts) {
                let out = rest.next().expect("invariant: a vector for each plane");
                *part = &mut out[run / plane.runs * plane.bytes..][..len / RUN / plane.runs * plane.bytes];
            }
            let unpacked = Unpacked {
                bytes,
                q: &q[..len],
                scale: &scale[..subs],
                offset: &offset[..subs],
                sub: blocks.sub,
            };
            pack(&unpacked, &mut parts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cchaha_plan::FORMATS;

    #[test]
    fn every_format_has_a_layout_and_names_are_unique() {
        for row in &FORMATS {
            assert!(Layout::of(row.format, None).is_some(), "{} has no layout", row.name);
        }
        let mut names: Vec<_> = LAYOUTS.iter().map(|layout| layout.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), LAYOUTS.len());
    }
}
