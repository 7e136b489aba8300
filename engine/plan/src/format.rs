//! Storage formats of weights: the one table every crate reads names, ids and block sizes from.

/// How the values of a weight are stored. The blocks are those of GGUF (`ggml_type`); their byte layouts are
/// documented beside their decoders in `cchaha-kernels::formats`.
#[allow(non_camel_case_types, missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
    MXFP4,
}

/// One row of the format table.
#[derive(Clone, Copy, Debug)]
pub struct FormatInfo {
    /// The format this row describes.
    pub format: Format,
    /// Name as users of GGUF know it, for example `Q4_K`.
    pub name: &'static str,
    /// `ggml_type` number in GGUF files.
    pub ggml_id: u32,
    /// Values in one block.
    pub block_len: usize,
    /// Bytes of one block.
    pub block_bytes: usize,
}

const fn row(
    format: Format,
    name: &'static str,
    ggml_id: u32,
    block_len: usize,
    block_bytes: usize,
) -> FormatInfo {
    FormatInfo { format, name, ggml_id, block_len, block_bytes }
}

/// Every format the engine runs, in the order of [`Format`].
pub const FORMATS: [FormatInfo; 16] = [
    row(Format::F32, "F32", 0, 1, 4),
    row(Format::F16, "F16", 1, 1, 2),
    row(Format::BF16, "BF16", 30, 1, 2),
    row(Format::Q4_0, "Q4_0", 2, 32, 18),
    row(Format::Q4_1, "Q4_1", 3, 32, 20),
    row(Format::Q5_0, "Q5_0", 6, 32, 22),
    row(Format::Q5_1, "Q5_1", 7, 32, 24),
    row(Format::Q8_0, "Q8_0", 8, 32, 34),
    row(Format::Q2_K, "Q2_K", 10, 256, 84),
    row(Format::Q3_K, "Q3_K", 11, 256, 110),
    row(Format::Q4_K, "Q4_K", 12, 256, 144),
    row(Format::Q5_K, "Q5_K", 13, 256, 176),
    row(Format::Q6_K, "Q6_K", 14, 256, 210),
    row(Format::IQ4_NL, "IQ4_NL", 20, 32, 18),
    row(Format::IQ4_XS, "IQ4_XS", 23, 256, 136),
    row(Format::MXFP4, "MXFP4", 39, 32, 17),
];

const ALL: [Format; FORMATS.len()] = {
    let mut all = [Format::F32; FORMATS.len()];
    let mut i = 0;
    while i < all.len() {
        all[i] = FORMATS[i].format;
        i += 1;
    }
    all
};

const FLOATS: usize = {
    let mut n = 0;
    while FORMATS[n].block_len == 1 {
        n += 1;
    }
    n
};

impl Format {
    /// Every format, in the order of [`FORMATS`].
    pub const ALL: &[Format] = &ALL;

    /// Those whose values come in blocks: all but the floats, which stand first in the table.
    pub const BLOCKS: &[Format] = ALL.split_at(FLOATS).1;

    /// The table row of this format.
    pub const fn info(self) -> &'static FormatInfo {
        &FORMATS[self as usize]
    }

    /// Name as users of GGUF know it.
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// Values in one block.
    pub const fn block_len(self) -> usize {
        self.info().block_len
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        self.info().block_bytes
    }

    /// The format with this `ggml_type` number, if the engine runs it.
    pub fn from_ggml_id(id: u32) -> Option<Format> {
        FORMATS.iter().find(|row| row.ggml_id == id).map(|row| row.format)
    }

    /// The format with this name, letter case ignored.
    pub fn from_name(name: &str) -> Option<Format> {
        FORMATS.iter().find(|row| row.name.eq_ignore_ascii_case(name)).map(|row| row.format)
    }

    /// Bytes of one row of `cols` values, or `None` where `cols` is no whole number of blocks or the size
    /// does not fit in `usize`.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        let info = self.info();
        if !cols.is_multiple_of(info.block_len) {
            return None;
        }
        (cols / info.block_len).checked_mul(info.block_bytes)
    }

    /// Mean bits used for one value.
    pub fn bits_per_weight(self) -> f64 {
        let info = self.info();
        info.block_bytes as f64 * 8.0 / info.block_len as f64
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_at_their_own_index() {
        for (index, row) in FORMATS.iter().enumerate() {
            assert_eq!(row.format as usize, index);
            assert_eq!(Format::from_ggml_id(row.ggml_id), Some(row.format));
            assert_eq!(Format::from_name(&row.name.to_lowercase()), Some(row.format));
        }
    }

    #[test]
    fn ragged_rows_have_no_size() {
        assert_eq!(Format::Q4_K.row_bytes(256), Some(144));
        assert_eq!(Format::Q4_K.row_bytes(255), None);
        assert_eq!(Format::F32.row_bytes(usize::MAX), None);
    }
}
