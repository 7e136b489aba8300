//! Instruction sets. Constructing a token proves that this machine has the instructions.

use std::fmt;

/// Instruction sets kernels are written for, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Portable Rust.
    Generic,
    /// x86-64 with AVX2, FMA and F16C (2013 on).
    Avx2,
}

impl Isa {
    /// All of them.
    pub const ALL: [Isa; 2] = [Isa::Generic, Isa::Avx2];

    /// As given to `--isa`.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Generic => "generic",
            Isa::Avx2 => "avx2",
        }
    }

    /// The set with this name, letter case ignored.
    pub fn from_name(name: &str) -> Option<Isa> {
        Isa::ALL.into_iter().find(|isa| isa.name().eq_ignore_ascii_case(name))
    }

    /// Whether this machine has it.
    pub fn available(self) -> bool {
        match self {
            Isa::Generic => true,
            Isa::Avx2 => Avx2::new().is_some(),
        }
    }

    /// The best this machine has.
    pub fn best() -> Isa {
        Isa::ALL.into_iter().rev().find(|isa| isa.available()).unwrap_or(Isa::Generic)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Proof that AVX2, FMA and F16C are there.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The proof, or `None` on a machine without them.
    #[inline]
    pub fn new() -> Option<Avx2> {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c")
        {
            return Some(Avx2(()));
        }
        None
    }
}
