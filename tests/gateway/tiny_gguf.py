"""Write a llama of one layer with random weights, 330 KB: enough for llama.cpp to load, tokenise and answer.

Run with the gateway environment's Python, which has numpy and gguf: `python tiny_gguf.py OUT.gguf`.
"""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import sys

import gguf
import numpy as np

WIDTH, HEADS, FFN, CONTEXT = 64, 4, 128, 2048
NORMAL, CONTROL, BYTE, UNKNOWN = (
    gguf.TokenType.NORMAL,
    gguf.TokenType.CONTROL,
    gguf.TokenType.BYTE,
    gguf.TokenType.UNKNOWN,
)
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "


def vocabulary() -> list[tuple[bytes, int]]:
    """Control tokens, every byte, and the letters with and without a space before them."""
    letters = [chr(code).encode() for code in range(ord("a"), ord("z") + 1)]
    return [
        (b"<unk>", UNKNOWN),
        (b"<s>", CONTROL),
        (b"</s>", CONTROL),
        *((f"<0x{code:02X}>".encode(), BYTE) for code in range(256)),
        *(("\u2581".encode() + letter, NORMAL) for letter in letters),
        *((letter, NORMAL) for letter in letters),
    ]


def main(path: str) -> None:
    """Write the file."""
    tokens = vocabulary()
    dice = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny-random")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_token_scores([-float(number) for number in range(len(tokens))])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)

    def tensor(name: str, *shape: int) -> None:
        values = dice.standard_normal(shape) * 0.05 if len(shape) > 1 else np.ones(shape)
        writer.add_tensor(name, values.astype(np.float32))

    tensor("token_embd.weight", len(tokens), WIDTH)
    tensor("output_norm.weight", WIDTH)
    tensor("output.weight", len(tokens), WIDTH)
    tensor("blk.0.attn_norm.weight", WIDTH)
    tensor("blk.0.ffn_norm.weight", WIDTH)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        tensor(f"blk.0.{name}.weight", WIDTH, WIDTH)
    tensor("blk.0.ffn_gate.weight", FFN, WIDTH)
    tensor("blk.0.ffn_up.weight", FFN, WIDTH)
    tensor("blk.0.ffn_down.weight", WIDTH, FFN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(sys.argv[1])
