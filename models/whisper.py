"""Whisper: a decoder that caches its own tokens and the encoder's positions, behind an encoder of sound."""

from __future__ import annotations

from models.weights import CacheLayers, DecoderArchitecture, Tower

POSITIONS, FRAMES, MELS = 448, 1500, 80  # of every size but for the mels of the third version


def whisper(
    *,
    hidden: int,
    layers: int,
    heads: int,
    ffn: int,
    vocab: int,
    positions: int = POSITIONS,
    frames: int = FRAMES,
    mels: int = MELS,
    encoder_layers: int | None = None,
    encoder_ffn: int | None = None,
) -> DecoderArchitecture:
    """The numbers of a config.json: d_model, decoder_layers, decoder_attention_heads, decoder_ffn_dim, vocab_size,
    max_target_positions, max_source_positions, num_mel_bins, and those of the encoder where they are others.
    """
    of_encoder = (encoder_layers or layers) * (4 * hidden * hidden + 2 * hidden * (encoder_ffn or ffn))
    convolutions = 3 * hidden * (mels + hidden) + frames * hidden
    linear = layers * (8 * hidden * hidden + 2 * hidden * ffn)
    alike = {"layers": layers, "kv_heads": heads, "head_dim": hidden // heads}
    return DecoderArchitecture(
        parameters=linear + (vocab + positions) * hidden,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        hidden=hidden,
        ffn=ffn,
        vocab=vocab,
        max_positions=positions,
        family="whisper",
        tied=True,
        mlp_matrices=2,
        linear=linear,
        cache=(
            CacheLayers.model_validate({"attention": "full", **alike}),
            CacheLayers.model_validate({"attention": "cross", "window": frames, **alike}),
        ),
        tower=Tower(
            parameters=of_encoder + convolutions,
            tokens=frames,
            patches=frames,
            width=2 * hidden,
            split=2 * (encoder_ffn or ffn),
        ),
        rotary_tables=0,
    )
