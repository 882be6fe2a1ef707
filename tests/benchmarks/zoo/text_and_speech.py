"""Networks of `transformers`, from small configs: each is given one float input, as the task's examples are."""

import importlib
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from zoo.libraries import declare_torchvision

TEXT = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
SPEECH = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "conv_dim": (16, 16), "conv_stride": (5, 4),
    "conv_kernel": (10, 8), "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}


class OneInput(nn.Module):
    """Gives a network its one input by name, and returns the first output. Ids are made of floats."""

    def __init__(self, body: nn.Module, name: str, vocabulary: int | None = None, **others: Any) -> None:
        super().__init__()
        self.body, self.name, self.vocabulary, self.others = body, name, vocabulary, others

    def forward(self, x: Tensor) -> Tensor:
        if self.vocabulary is not None:
            x = x.abs().mul(self.vocabulary / 3).long().clamp(max=self.vocabulary - 1)
        return self.body(**{self.name: x}, **self.others, return_dict=False)[0]


def _model(
    cls: str, name: str, config: dict[str, Any], vocabulary: int | None = None, **others: Any
) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        declare_torchvision()  # transformers imports torchvision where it finds it
        library = importlib.import_module("transformers")
        made = getattr(
            library, f"{cls}Config" if hasattr(library, f"{cls}Config") else cls.replace("Encoder", "Config")
        )(**config)
        model = getattr(library, f"{cls}Model")
        return OneInput(model(made), name, vocabulary, **others)

    return build


def _ids(cls: str, **config: Any) -> tuple[Callable[[], nn.Module], tuple[int, ...]]:
    return _model(cls, "input_ids", config or TEXT, 100), (12,)


def _embedded(cls: str, **config: Any) -> tuple[Callable[[], nn.Module], tuple[int, ...]]:
    return _model(cls, "inputs_embeds", config or TEXT), (12, 32)


def _image(cls: str, size: int = 32, **config: Any) -> tuple[Callable[[], nn.Module], tuple[int, ...]]:
    return _model(cls, "pixel_values", config or VISION), (3, size, size)


TRANSFORMERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "bert": _ids("Bert"),
    "bert_embedded": _embedded("Bert"),
    "roberta": _ids("Roberta"),
    "albert": _ids("Albert", **TEXT, embedding_size=16),
    "electra": _ids("Electra", **TEXT, embedding_size=16),
    "mpnet": _ids("MPNet"),
    "distilbert": _ids("DistilBert", vocab_size=100, dim=32, n_layers=2, n_heads=2, hidden_dim=64),
    "deberta_v2": _ids("DebertaV2", **TEXT, relative_attention=True, pos_att_type=["c2p", "p2c"]),
    "modernbert": _ids("ModernBert", **TEXT, pad_token_id=0, global_attn_every_n_layers=2),
    "t5_encoder": _ids("T5Encoder", vocab_size=100, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2),
    "gpt2": (_model("GPT2", "input_ids", {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 2}, 100, use_cache=False), (12,)),
    "llama": (_model("Llama", "inputs_embeds", {**TEXT, "num_key_value_heads": 1}, use_cache=False), (12, 32)),
    "qwen2": (_model("Qwen2", "input_ids", {**TEXT, "num_key_value_heads": 1}, 100, use_cache=False), (12,)),
    "vit": _image("ViT"),
    "deit": _image("DeiT"),
    "beit": _image("Beit", **VISION, use_relative_position_bias=True),
    "dinov2": _image("Dinov2", **{k: v for k, v in VISION.items() if k != "intermediate_size"}),
    "clip_vision": _image("CLIPVision"),
    "siglip_vision": _image("SiglipVision"),
    "segformer": _image("Segformer", 64, hidden_sizes=[8, 16, 32, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 2], decoder_hidden_size=32),
    "swin": _image("Swin", 64, image_size=64, embed_dim=16, depths=[2, 2], num_heads=[2, 2], window_size=4),
    "mobilevit": _image("MobileViT", 64, image_size=64, hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 48]),
    "convnext": _image("ConvNext", 64, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1]),
    "wav2vec2": (_model("Wav2Vec2", "input_values", {**SPEECH, "mask_time_prob": 0.0}), (800,)),
    "hubert": (_model("Hubert", "input_values", {**SPEECH, "mask_time_prob": 0.0}), (800,)),
    "wavlm": (_model("WavLM", "input_values", {**SPEECH, "mask_time_prob": 0.0, "num_buckets": 16, "max_bucket_distance": 32}), (800,)),
    "audio_spectrogram": (
        _model("AST", "input_values", {k: v for k, v in VISION.items() if k != "image_size"} | {"max_length": 64, "num_mel_bins": 16}),
        (64, 16),
    ),
}  # fmt: skip
"""By name: a function that returns the network, and the shape of one example."""
