//! Instruction sets. Constructing a token proves that this machine has the instructions.

use std::fmt;

/// Instruction sets kernels are written for, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Portable Rust.
    Generic,
    /// x86-64 with AVX2, FMA and F16C (2013 on).
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI as well (Intel Ice Lake, AMD Zen 4 on).
    Avx512,
    /// AArch64.
    Neon,
    /// AArch64 with 8-bit dot products (FEAT_DotProd; Apple M1 on).
    Dotprod,
    /// AArch64 with 8-bit matrix products as well (FEAT_I8MM; Apple M2 on).
    I8mm,
}

impl Isa {
    /// All of them.
    pub const ALL: [Isa; 6] = [Isa::Generic, Isa::Avx2, Isa::Avx512, Isa::Neon, Isa::Dotprod, Isa::I8mm];

    /// As given to `--isa`.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Generic => "generic",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
            Isa::Dotprod => "dotprod",
            Isa::I8mm => "i8mm",
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
            Isa::Avx512 => Avx512::new().is_some(),
            Isa::Neon => Neon::new().is_some(),
            Isa::Dotprod => Dotprod::new().is_some(),
            Isa::I8mm => I8mm::new().is_some(),
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

/// A token of an instruction set of `$arch`: `$feature`s that `$detected` finds on this machine.
macro_rules! token {
    ($(#[$doc:meta])* $name:ident, $arch:tt, $detected:ident, $($feature:tt)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name(());

        impl $name {
            /// The proof, or `None` on a machine without them.
            #[inline]
            pub fn new() -> Option<$name> {
                #[cfg(target_arch = $arch)]
                if true $(&& std::arch::$detected!($feature))* {
                    return Some($name(()));
                }
                None
            }
        }
    };
}

token! {
    /// Proof that AVX2, FMA and F16C are there.
    Avx2, "x86_64", is_x86_feature_detected, "avx2" "fma" "f16c"
}
token! {
    /// Proof that AVX-512 F, BW, DQ, VL and VNNI are there, and what [`Avx2`] proves.
    Avx512, "x86_64", is_x86_feature_detected,
    "avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512vnni"
}
token! {
    /// Proof that NEON is there.
    Neon, "aarch64", is_aarch64_feature_detected, "neon"
}
token! {
    /// Proof that NEON and `sdot` are there.
    Dotprod, "aarch64", is_aarch64_feature_detected, "neon" "dotprod"
}
token! {
    /// Proof that NEON, `sdot` and `smmla` are there.
    I8mm, "aarch64", is_aarch64_feature_detected, "neon" "dotprod" "i8mm"
}
