//! What `quantize` does, one file each.

pub(crate) mod compare;
pub(crate) mod convert;
pub(crate) mod imatrix;
pub(crate) mod verify;
