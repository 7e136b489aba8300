"""llama.cpp as an independent implementation: logits of given tokens, through llama-cpp-python's raw bindings.

Needs `pip install llama-cpp-python==0.3.36` (a build of some 20 minutes), or its source tree on PYTHONPATH and a
libllama.so of the same version in LLAMA_CPP_LIB_PATH.
"""

import ctypes

import llama_cpp as api
import numpy as np

VERSION = f"llama-cpp-python {api.__version__}"
_silence = api.llama_log_callback(lambda level, text, data: None)  # kept alive: C holds a pointer to it
api.llama_log_set(_silence, None)


def machine():
    """The CPU, and what llama.cpp was built to use of it."""
    with open("/proc/cpuinfo") as f:
        cpu = next(line.split(":")[1].strip() for line in f if line.startswith("model name"))
    return f"{cpu}; {api.llama_print_system_info().decode().strip(' |')}"


class Llama:
    def __init__(self, path, exact=False, n_ctx=512, threads=2):
        """exact: f32 KV cache, no flash attention, no repacked weights; otherwise llama.cpp's defaults."""
        params = api.llama_model_default_params()
        if exact:
            params.use_extra_bufts = False
        self.model = api.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        self.vocab = api.llama_model_get_vocab(self.model)
        self.n_vocab = api.llama_vocab_n_tokens(self.vocab)
        params = api.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = n_ctx
        params.n_threads = params.n_threads_batch = threads
        if exact:
            params.type_k = params.type_v = api.GGML_TYPE_F32
            params.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = api.llama_init_from_model(self.model, params)
        self.n_past = 0

    def close(self):
        api.llama_free(self.context)
        api.llama_model_free(self.model)

    def reset(self):
        api.llama_memory_clear(api.llama_get_memory(self.context), True)
        self.n_past = 0

    def tokenize(self, text):
        """With the tokens (BOS) that the file says to add."""
        data, room = text.encode(), len(text.encode()) + 8
        out = (api.llama_token * room)()
        return out[: api.llama_tokenize(self.vocab, data, len(data), out, room, True, False)]

    def feed(self, tokens):
        """Appends tokens to the sequence in one batch; logits (n, v) of each of them."""
        batch = api.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, self.n_past + i, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        if (status := api.llama_decode(self.context, batch)) != 0:
            raise RuntimeError(f"llama_decode: {status}")
        api.llama_batch_free(batch)
        self.n_past += len(tokens)
        logits = api.llama_get_logits(self.context)
        flat = np.ctypeslib.as_array(ctypes.cast(logits, ctypes.POINTER(ctypes.c_float)), (len(tokens), self.n_vocab))
        return flat.astype(np.float64)

    def feed_through_window(self, tokens, window):
        """Token by token, each seeing only the `window` last positions: older cells are dropped from the cache."""
        rows = []
        for token in tokens:
            api.llama_memory_seq_rm(api.llama_get_memory(self.context), 0, 0, max(self.n_past - window + 1, 0))
            rows.append(self.feed([token]))
        return np.concatenate(rows)

    def greedy(self, tokens, count):
        """Prompt in one batch, then token by token; all tokens, and the logits (len - 1, v) that preceded each but the first."""
        self.reset()
        tokens, seen = list(tokens), [self.feed(tokens)]
        for _ in range(count):
            tokens.append(int(seen[-1][-1].argmax()))
            if len(seen) < count:
                seen.append(self.feed(tokens[-1:]))
        return tokens, np.concatenate(seen)

    def follow(self, tokens, n_prompt):
        """The logits of `greedy`'s steps on given tokens."""
        self.reset()
        return np.concatenate([self.feed(tokens[:n_prompt]), *(self.feed([t]) for t in tokens[n_prompt:-1])])
