//! One GGUF file's bytes into metadata and tensors, everything checked.

use std::sync::Arc;

use cchaha_plan::{Bytes, Format};

use crate::cursor::Cursor;
use crate::error::{Place, excerpt};
use crate::metadata::Entry;
use crate::value::{Array, Strings, Value};
use crate::{Dims, Error, Metadata, TensorInfo};

// Limits far above what models have. A key, tensor or inner array takes more bytes in memory than in the file,
// so their number is what bounds memory.
pub(crate) const MAX_KEYS: u64 = 1 << 14;
pub(crate) const MAX_TENSORS: u64 = 1 << 16;
pub(crate) const MAX_INNER_ARRAYS: u64 = 1 << 14;
pub(crate) const MAX_DEPTH: u32 = 4;
/// Bytes of a key or tensor name.
pub(crate) const MAX_NAME_BYTES: usize = 65_535;

/// Type numbers of metadata values.
pub(crate) mod types {
    pub(crate) const U8: u32 = 0;
    pub(crate) const I8: u32 = 1;
    pub(crate) const U16: u32 = 2;
    pub(crate) const I16: u32 = 3;
    pub(crate) const U32: u32 = 4;
    pub(crate) const I32: u32 = 5;
    pub(crate) const F32: u32 = 6;
    pub(crate) const BOOL: u32 = 7;
    pub(crate) const STRING: u32 = 8;
    pub(crate) const ARRAY: u32 = 9;
    pub(crate) const U64: u32 = 10;
    pub(crate) const I64: u32 = 11;
    pub(crate) const F64: u32 = 12;
}

/// What one file holds.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) version: u32,
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<TensorInfo>,
}

/// Reads and checks one file. `part` is its number in a split model.
pub(crate) fn parse(file: &Arc<str>, bytes: &Bytes, part: u32) -> Result<Parsed, Error> {
    let mut reader = Reader { cursor: Cursor::new(file, bytes.as_slice()), file, bytes, inner_arrays: 0 };
    let version = reader.version()?;
    let n_tensors = reader.cursor.u64()?;
    let n_keys = reader.cursor.u64()?;
    let metadata = reader.metadata(n_keys)?;
    let headers = reader.tensor_headers(n_tensors)?;
    let tensors = reader.place_tensors(headers, &metadata, part)?;
    Ok(Parsed { version, metadata, tensors })
}

struct Reader<'a> {
    cursor: Cursor<'a>,
    file: &'a Arc<str>,
    bytes: &'a Bytes,
    inner_arrays: u64,
}

/// What the file declares of one tensor.
struct TensorHeader<'a> {
    name: &'a str,
    /// Where this declaration starts in the file.
    at: usize,
    format: Format,
    dims: Dims,
    n_bytes: u64,
    /// From the start of the tensor data.
    offset: u64,
}

impl<'a> Reader<'a> {
    /// Magic number and version.
    fn version(&mut self) -> Result<u32, Error> {
        let file = || self.file.to_string();
        let bytes = self.bytes.as_slice();
        if bytes.is_empty() {
            return Err(Error::Empty { file: file() });
        }
        if !bytes.starts_with(b"GGUF") && !b"GGUF".starts_with(bytes) {
            return Err(Error::NotGguf { file: file(), start: excerpt(bytes, 8), hint: hint(bytes) });
        }
        self.cursor.take(4)?;
        match self.cursor.u32()? {
            version @ (2 | 3) => Ok(version),
            found if (1..=3).contains(&found.swap_bytes()) => Err(Error::BigEndian { file: file() }),
            found => Err(Error::Version { file: file(), found }),
        }
    }

    fn metadata(&mut self, n_keys: u64) -> Result<Metadata, Error> {
        self.cursor.at_most(MAX_KEYS, n_keys, "keys")?;
        // A key's length, the type, one byte of value.
        self.cursor.fits(n_keys, 8 + 4 + 1)?;
        let mut entries = Vec::with_capacity(n_keys as usize);
        for i in 0..n_keys {
            self.cursor.place = Place::KeyNumber(i);
            let key = self.cursor.text(MAX_NAME_BYTES)?;
            self.cursor.place = Place::Key(key);
            let at = self.cursor.at() as u64;
            let value = self.value()?;
            entries.push(Entry { key: key.to_owned(), value, at });
        }
        Metadata::from_entries(self.file.clone(), entries).map_err(|second| Error::Duplicate {
            file: self.file.to_string(),
            place: Place::Key(&second.key).to_string(),
            at: second.at,
        })
    }

    fn value(&mut self) -> Result<Value, Error> {
        let at = self.cursor.at();
        let cursor = &mut self.cursor;
        Ok(match cursor.u32()? {
            types::U8 => Value::U8(u8::from_le_bytes(cursor.array()?)),
            types::I8 => Value::I8(i8::from_le_bytes(cursor.array()?)),
            types::U16 => Value::U16(u16::from_le_bytes(cursor.array()?)),
            types::I16 => Value::I16(i16::from_le_bytes(cursor.array()?)),
            types::U32 => Value::U32(u32::from_le_bytes(cursor.array()?)),
            types::I32 => Value::I32(i32::from_le_bytes(cursor.array()?)),
            types::U64 => Value::U64(u64::from_le_bytes(cursor.array()?)),
            types::I64 => Value::I64(i64::from_le_bytes(cursor.array()?)),
            types::F32 => Value::F32(f32::from_le_bytes(cursor.array()?)),
            types::F64 => Value::F64(f64::from_le_bytes(cursor.array()?)),
            types::BOOL => Value::Bool(self.bools(1)?[0]),
            types::STRING => Value::Str(cursor.text(usize::MAX)?.to_owned()),
            types::ARRAY => Value::Array(self.array(1)?),
            other => return Err(unknown_type(cursor, at, other)),
        })
    }

    fn array(&mut self, depth: u32) -> Result<Array, Error> {
        let at = self.cursor.at();
        Ok(match self.cursor.u32()? {
            types::U8 => Array::U8(self.numbers(u8::from_le_bytes)?),
            types::I8 => Array::I8(self.numbers(i8::from_le_bytes)?),
            types::U16 => Array::U16(self.numbers(u16::from_le_bytes)?),
            types::I16 => Array::I16(self.numbers(i16::from_le_bytes)?),
            types::U32 => Array::U32(self.numbers(u32::from_le_bytes)?),
            types::I32 => Array::I32(self.numbers(i32::from_le_bytes)?),
            types::U64 => Array::U64(self.numbers(u64::from_le_bytes)?),
            types::I64 => Array::I64(self.numbers(i64::from_le_bytes)?),
            types::F32 => Array::F32(self.numbers(f32::from_le_bytes)?),
            types::F64 => Array::F64(self.numbers(f64::from_le_bytes)?),
            types::BOOL => {
                let count = self.cursor.count(1)?;
                Array::Bool(self.bools(count)?)
            }
            types::STRING => Array::Strings(self.strings()?),
            types::ARRAY => Array::Arrays(self.arrays(depth + 1)?),
            other => return Err(unknown_type(&self.cursor, at, other)),
        })
    }

    fn numbers<const N: usize, T>(&mut self, decode: impl Fn([u8; N]) -> T) -> Result<Vec<T>, Error> {
        let count = self.cursor.count(N as u64)?;
        let bytes = self.cursor.take((count * N) as u64)?;
        let (numbers, _) = bytes.as_chunks::<N>();
        Ok(numbers.iter().map(|&number| decode(number)).collect())
    }

    fn bools(&mut self, count: usize) -> Result<Vec<bool>, Error> {
        let start = self.cursor.at();
        let bytes = self.cursor.take(count as u64)?;
        if let Some(i) = bytes.iter().position(|&byte| byte > 1) {
            return Err(self.cursor.invalid(start + i, format!("a bool is {}, expected 0 or 1", bytes[i])));
        }
        Ok(bytes.iter().map(|&byte| byte == 1).collect())
    }

    fn strings(&mut self) -> Result<Strings, Error> {
        let count = self.cursor.count(8)?;
        let first = self.cursor.at();
        let mut starts = Vec::with_capacity(count);
        for _ in 0..count {
            starts.push(self.cursor.at() - first);
            self.cursor.string()?;
        }
        let stored =
            self.bytes.slice(self.cursor.since(first)).expect("invariant: the cursor read these bytes");
        Ok(Strings::from_stored(stored, starts))
    }

    fn arrays(&mut self, depth: u32) -> Result<Vec<Array>, Error> {
        self.cursor.at_most(u64::from(MAX_DEPTH), u64::from(depth), "arrays inside each other")?;
        // An inner array's type and count.
        let count = self.cursor.count(4 + 8)?;
        self.inner_arrays += count as u64;
        self.cursor.at_most(MAX_INNER_ARRAYS, self.inner_arrays, "arrays in arrays")?;
        let mut arrays = Vec::with_capacity(count);
        for _ in 0..count {
            arrays.push(self.array(depth)?);
        }
        Ok(arrays)
    }

    fn tensor_headers(&mut self, n_tensors: u64) -> Result<Vec<TensorHeader<'a>>, Error> {
        self.cursor.place = Place::Header;
        self.cursor.at_most(MAX_TENSORS, n_tensors, "tensors")?;
        // A name's length, the number of dimensions, one dimension, type and offset.
        self.cursor.fits(n_tensors, 8 + 4 + 8 + 4 + 8)?;
        let mut headers = Vec::with_capacity(n_tensors as usize);
        for i in 0..n_tensors {
            self.cursor.place = Place::TensorNumber(i);
            headers.push(self.tensor_header()?);
        }
        Ok(headers)
    }

    fn tensor_header(&mut self) -> Result<TensorHeader<'a>, Error> {
        let cursor = &mut self.cursor;
        let at = cursor.at();
        let name = cursor.text(MAX_NAME_BYTES)?;
        cursor.place = Place::Tensor(name);

        let dims_at = cursor.at();
        let n_dims = cursor.u32()? as usize;
        if !(1..=Dims::MAX).contains(&n_dims) {
            return Err(cursor.invalid(dims_at, format!("{n_dims} dimensions, expected 1 to {}", Dims::MAX)));
        }
        let mut stored = [0u64; Dims::MAX];
        for dim in &mut stored[..n_dims] {
            *dim = cursor.u64()?;
        }
        let stored = &stored[..n_dims];

        let type_at = cursor.at();
        let id = cursor.u32()?;
        let format = Format::from_ggml_id(id).ok_or_else(|| Error::UnsupportedFormat {
            file: self.file.to_string(),
            place: cursor.place.to_string(),
            at: type_at as u64,
            found: unsupported_name(id).map_or_else(|| format!("number {id}"), str::to_owned),
        })?;

        let lens: Option<Vec<usize>> = stored.iter().map(|&len| usize::try_from(len).ok()).collect();
        let dims = lens.as_deref().and_then(Dims::new).ok_or_else(|| {
            let expected = "none zero and a product that fits in memory";
            cursor.invalid(dims_at, format!("dimensions {stored:?}, expected {expected}"))
        })?;
        if !dims.cols().is_multiple_of(format.block_len()) {
            let (cols, block) = (dims.cols(), format.block_len());
            let problem = format!("{cols} columns of {format}, expected a multiple of its block of {block}");
            return Err(cursor.invalid(dims_at, problem));
        }
        let n_bytes = dims.n_bytes(format).ok_or_else(|| {
            cursor.invalid(
                dims_at,
                format!("dimensions {stored:?} of {format} take more bytes than memory has"),
            )
        })?;
        let offset = cursor.u64()?;
        Ok(TensorHeader { name, at, format, dims, n_bytes: n_bytes as u64, offset })
    }

    /// Turns offsets into views of the data, in file order.
    fn place_tensors(
        &mut self,
        headers: Vec<TensorHeader<'a>>,
        metadata: &Metadata,
        part: u32,
    ) -> Result<Vec<TensorInfo>, Error> {
        let alignment = u64::from(metadata.alignment()?);
        let file_len = self.bytes.len() as u64;
        // Cannot overflow: a file is shorter than 2^63 and an alignment than 2^32.
        let data_start = (self.cursor.at() as u64).next_multiple_of(alignment);
        let named = |header: &TensorHeader| Place::Tensor(header.name).to_string();
        let invalid = |header: &TensorHeader, problem: String| Error::Invalid {
            file: self.file.to_string(),
            place: named(header),
            at: header.at as u64,
            problem,
        };

        let mut last: Option<(u64, u64, &TensorHeader)> = None;
        let mut ranges = Vec::with_capacity(headers.len());
        for header in &headers {
            let offset = header.offset;
            if !offset.is_multiple_of(alignment) {
                let problem =
                    format!("its offset is {offset}, expected a multiple of the alignment {alignment}");
                return Err(invalid(header, problem));
            }
            let start = data_start.checked_add(offset);
            let end = start.and_then(|start| start.checked_add(header.n_bytes));
            let (Some(start), Some(end)) = (start, end) else {
                let problem = format!("its offset is {offset}, which lies outside of any file");
                return Err(invalid(header, problem));
            };
            if last.is_none_or(|(last_end, ..)| end > last_end) {
                last = Some((end, start, header));
            }
            ranges.push((start, end));
        }
        if let Some((end, start, header)) = last.filter(|(end, ..)| *end > file_len) {
            return Err(Error::Truncated {
                file: self.file.to_string(),
                place: format!("the data of {}", named(header)),
                at: start,
                missing: end - file_len,
                file_len,
            });
        }

        let mut by_start: Vec<u32> = (0..headers.len() as u32).collect();
        by_start.sort_unstable_by_key(|&i| ranges[i as usize]);
        for pair in by_start.windows(2) {
            let (first, second) = (pair[0] as usize, pair[1] as usize);
            if ranges[first].1 > ranges[second].0 {
                let problem = format!("its data overlaps that of {}", named(&headers[first]));
                return Err(invalid(&headers[second], problem));
            }
        }

        let tensors = headers.into_iter().zip(ranges).map(|(header, (start, end))| TensorInfo {
            name: header.name.to_owned(),
            format: header.format,
            dims: header.dims,
            data: self
                .bytes
                .slice(start as usize..end as usize)
                .expect("invariant: checked to end in the file"),
            offset: start,
            part,
        });
        Ok(tensors.collect())
    }
}

fn unknown_type(cursor: &Cursor<'_>, at: usize, found: u32) -> Error {
    cursor.invalid(at, format!("value type {found}, expected 0 to {}", types::F64))
}

/// What a file that is no GGUF file may be, by its first bytes.
fn hint(bytes: &[u8]) -> &'static str {
    const HINTS: [(&[u8], &str); 7] = [
        (b"version https://git-lfs", " (a Git LFS pointer, not the model: run git lfs pull)"),
        (b"<", " (a web page, not the model: check the download address)"),
        (b"PK\x03\x04", " (a ZIP archive or PyTorch checkpoint: convert it to GGUF)"),
        (b"lmgg", " (a GGML file from before GGUF: get a current conversion)"),
        (b"fmgg", " (a GGML file from before GGUF: get a current conversion)"),
        (b"tjgg", " (a GGML file from before GGUF: get a current conversion)"),
        (b"FUGG", " (a big-endian GGUF file: convert it again without --bigendian)"),
    ];
    if bytes.get(8) == Some(&b'{') {
        return " (it looks like safetensors: convert it to GGUF)";
    }
    HINTS.iter().find(|(start, _)| bytes.starts_with(start)).map_or("", |(_, hint)| hint)
}

/// Names of tensor types that exist but that the engine does not run.
fn unsupported_name(id: u32) -> Option<&'static str> {
    Some(match id {
        4 => "Q4_2",
        5 => "Q4_3",
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        31 => "Q4_0_4_4",
        32 => "Q4_0_4_8",
        33 => "Q4_0_8_8",
        34 => "TQ1_0",
        35 => "TQ2_0",
        36 => "IQ4_NL_4_4",
        37 => "IQ4_NL_4_8",
        38 => "IQ4_NL_8_8",
        40 => "NVFP4",
        41 => "Q1_0",
        _ => return None,
    })
}
