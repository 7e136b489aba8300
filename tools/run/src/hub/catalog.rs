//! Code models that are known to run well, by short names.

use super::Reference;

/// One model.
pub(crate) struct Known {
    pub(crate) name: &'static str,
    repo: &'static str,
    quant: &'static str,
    pub(crate) licence: &'static str,
    /// Of the file, for the list; of the large models rounded.
    pub(crate) bytes: u64,
    /// Of keys and values, for one token of context.
    kv_bytes: u64,
}

/// Tokens of context for which the memory is given: the default of most commands.
pub(crate) const CONTEXT: u64 = cchaha::DEFAULT_CONTEXT as u64;

pub(crate) const KNOWN: &[Known] = &[
    Known {
        name: "qwen2.5-coder-0.5b",
        repo: "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        quant: "Q4_K_M",
        licence: "Apache-2.0",
        bytes: 491_400_064,
        // 24 layers, 2 KV heads of 64, keys and values, f16.
        kv_bytes: 24 * 2 * 64 * 2 * 2,
    },
    Known {
        name: "qwen2.5-coder-1.5b",
        repo: "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        quant: "Q4_K_M",
        licence: "Apache-2.0",
        bytes: 1_117_320_768,
        // 28 layers, 2 KV heads of 128.
        kv_bytes: 28 * 2 * 128 * 2 * 2,
    },
    Known {
        name: "qwen2.5-coder-3b",
        repo: "Qwen/Qwen2.5-Coder-3B-Instruct-GGUF",
        quant: "Q4_K_M",
        licence: "Qwen Research: not for commercial use",
        bytes: 2_100_000_000,
        // 36 layers, 2 KV heads of 128.
        kv_bytes: 36 * 2 * 128 * 2 * 2,
    },
    Known {
        name: "qwen2.5-coder-7b",
        repo: "Qwen/Qwen2.5-Coder-7B-Instruct-GGUF",
        quant: "Q4_K_M",
        licence: "Apache-2.0",
        bytes: 4_680_000_000,
        // 28 layers, 4 KV heads of 128.
        kv_bytes: 28 * 4 * 128 * 2 * 2,
    },
    Known {
        name: "qwen2.5-coder-14b",
        repo: "Qwen/Qwen2.5-Coder-14B-Instruct-GGUF",
        quant: "Q4_K_M",
        licence: "Apache-2.0",
        bytes: 8_990_000_000,
        // 48 layers, 8 KV heads of 128.
        kv_bytes: 48 * 8 * 128 * 2 * 2,
    },
    Known {
        name: "qwen2.5-coder-32b",
        repo: "Qwen/Qwen2.5-Coder-32B-Instruct-GGUF",
        quant: "Q4_K_M",
        licence: "Apache-2.0",
        bytes: 19_850_000_000,
        // 64 layers, 8 KV heads of 128.
        kv_bytes: 64 * 8 * 128 * 2 * 2,
    },
    Known {
        name: "qwen3-coder-30b-a3b",
        repo: "unsloth/Qwen3-Coder-30B-A3B-Instruct-GGUF",
        quant: "Q4_K_M",
        licence: "Apache-2.0",
        bytes: 18_560_000_000,
        // 48 layers, 4 KV heads of 128.
        kv_bytes: 48 * 4 * 128 * 2 * 2,
    },
];

impl Known {
    /// The model of this short name.
    pub(crate) fn find(name: &str) -> Option<&'static Known> {
        KNOWN.iter().find(|known| known.name.eq_ignore_ascii_case(name))
    }

    pub(crate) fn reference(&self) -> Reference {
        Reference { repo: self.repo.to_owned(), quant: Some(self.quant.to_owned()) }
    }

    /// Weights, keys and values; buffers are small beside them.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.bytes + CONTEXT * self.kv_bytes
    }
}
