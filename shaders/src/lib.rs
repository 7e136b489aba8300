//! GPU back end (WGSL through wgpu): the second twin of every op in `cchaha-kernels`. Its kernels land with the GPU work.
