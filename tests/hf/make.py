"""Tiny random checkpoints as Hugging Face transformers saves them, and what that implementation computes on them.

usage: make.py [NAME ...]     writes NAME/ beside this file; needs torch, transformers 4.57 and tokenizers

Every folder holds what `save_pretrained` wrote, and `expected.json`: `tokens`, `positions`, `logits` (those of the model
in float32, at these positions), and `text` with the `ids` that the tokenizer gives for it, without special tokens.
Projections are scaled so that attention is sharp: a wrong rotation, mask or head order moves the logits by tenths.
"""

import json
import math
import shutil
import sys
from pathlib import Path

import torch
import transformers as t
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent
POSITIONS = [0, 7, 15, 23, 39]
TEXT = "def the_3456 (in):\n\n    return   'café' # it's 12,345\t➔<|im_end|>the end  "
CORPUS = ["def the(in):\n    return there, then\n", "the thin end in the tin", "12 345 the_in      it's café"] * 4
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"

GPT4 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
        r"\s+(?!\S)|\s+")


def byte_level(first, vocab, bos=False, normalizer=None):
    """Byte-level BPE whose words are cut by `first`."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=bos))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(first)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=vocab, initial_alphabet=alphabet))
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False)])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.token_to_id("<|endoftext|>"))])
    return t.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|endoftext|>",
        chat_template=TEMPLATE)


def gpt4(digits, **more):
    return byte_level([pre_tokenizers.Split(Regex(GPT4 % digits), "isolated"),
                       pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)], 280, **more)


def starcoder():
    return byte_level([pre_tokenizers.Digits(individual_digits=True),
                       pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)], 280)


def sentence_piece(specials, prefix):
    """BPE with byte fallback, as converters write SentencePiece models: merges in the order of the scores."""
    words = ["▁", "t", "h", "e", "i", "n", "d", "f", "r", "▁t", "he", "▁the", "in", "re", "▁▁", "▁▁▁▁", "de", "def"]
    vocab = {p: i for i, p in enumerate([*specials, *(f"<0x{b:02X}>" for b in range(256)), *words])}
    merges = [(p[:i], p[i:]) for p in words for i in range(1, len(p)) if p[:i] in vocab and p[i:] in vocab]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prefix else replace
    if not prefix:
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bos, eos = ("<s>", "</s>") if prefix else ("<bos>", "<eos>")
    tokenizer.add_special_tokens(list(specials))
    tokenizer.add_special_tokens(["<|im_end|>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))])
    return t.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, unk_token="<unk>",
                                     add_bos_token=True)


SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=128)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32)
LINEAR = dict(rope_type="linear", factor=8.0)

# Name: tokenizer, configuration, type the weights are saved in, most bytes of a shard.
MODELS = {
    "llama": (lambda: sentence_piece(["<unk>", "<s>", "</s>"], True),
              t.LlamaConfig(**SIZES, tie_word_embeddings=False), torch.float32, None),
    "llama3": (lambda: gpt4("{1,3}", bos=True),
               t.LlamaConfig(**SIZES, head_dim=16, tie_word_embeddings=True, rope_theta=500.0, rope_scaling=LLAMA3,
                             attention_bias=True), torch.bfloat16, "20KB"),
    "mistral": (lambda: sentence_piece(["<unk>", "<s>", "</s>"], True),
                t.MistralConfig(**SIZES, head_dim=8, sliding_window=12), torch.float16, None),
    "qwen2": (lambda: gpt4("", normalizer=normalizers.NFC()),
              t.Qwen2Config(**SIZES, rope_theta=1e6, rope_scaling=YARN, tie_word_embeddings=False), torch.bfloat16, None),
    "qwen3": (lambda: gpt4("", normalizer=normalizers.NFC()),
              t.Qwen3Config(**SIZES, head_dim=16, rope_theta=1e6, tie_word_embeddings=True), torch.bfloat16, None),
    "qwen3moe": (lambda: gpt4("", normalizer=normalizers.NFC()),
                 t.Qwen3MoeConfig(**SIZES, head_dim=16, rope_theta=1e6, num_experts=5, num_experts_per_tok=2,
                                  moe_intermediate_size=24, norm_topk_prob=True, tie_word_embeddings=True),
                 torch.bfloat16, "30KB"),
    "gemma3": (lambda: sentence_piece(["<pad>", "<eos>", "<bos>", "<unk>"], False),
               t.Gemma3TextConfig(**SIZES | dict(num_hidden_layers=7), head_dim=16, query_pre_attn_scalar=16,
                                  sliding_window=12, rope_scaling=LINEAR), torch.bfloat16, None),
    "starcoder2": (starcoder, t.Starcoder2Config(**SIZES, sliding_window=12, rope_theta=1e5), torch.bfloat16, None),
    "granite": (starcoder, t.GraniteConfig(**SIZES, embedding_multiplier=3.0, residual_multiplier=0.5,
                                           attention_multiplier=0.2, logits_scaling=2.0, attention_bias=True,
                                           tie_word_embeddings=True), torch.bfloat16, None),
}


def random_weights(model, dtype):
    """Sharp projections, norms around what leaves values alone, biases of some tenths; exact in `dtype`."""
    torch.manual_seed(sum(map(ord, model.config.model_type)))
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            values = torch.randn(weight.shape) * 1.5 / math.sqrt(weight.shape[-1])
        else:
            unit = "norm" in name and name.endswith("weight") and model.config.model_type != "gemma3_text"
            values = unit + 0.25 * torch.randn(weight.shape)
        weight.data = values.to(dtype).float()


def make(name):
    tokenizer, config, dtype, shard = MODELS[name]
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = tokenizer()
    # A few rows more than there are tokens, as published models have.
    config.vocab_size = len(tokenizer) + 3
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    config._attn_implementation = "eager"
    model = t.AutoModelForCausalLM.from_config(config).float().eval()
    random_weights(model, dtype)
    tokens = torch.randint(0, len(tokenizer), (1, POSITIONS[-1] + 1))
    with torch.no_grad():
        logits = model(tokens, use_cache=False).logits[0, POSITIONS]
    model.generation_config = t.GenerationConfig(
        do_sample=True, temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=[tokenizer.eos_token_id, tokenizer.bos_token_id])
    model.to(dtype).save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    tokenizer.save_pretrained(folder)
    expected = dict(tokens=tokens[0].tolist(), positions=POSITIONS,
                    logits=[[round(x, 6) for x in row] for row in logits.tolist()],
                    text=TEXT, ids=tokenizer(TEXT, add_special_tokens=False).input_ids)
    (folder / "expected.json").write_text(json.dumps(expected, ensure_ascii=False) + "\n")


for name in sys.argv[1:] or MODELS:
    make(name)
