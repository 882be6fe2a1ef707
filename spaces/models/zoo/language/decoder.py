"""A language model as a decoder with a key-value cache: one pass for each new token instead of one for the whole window."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spaces.models.exporters.quiet import quiet
from spaces.models.onnx.fold_constants import fold_constants
from spaces.models.onnx.opset import OPSET
from spaces.models.zoo.language.decoder_interface import INPUTS, OUTPUTS
from spaces.models.zoo.language.llama import Block, Llama, rotary_tables

if TYPE_CHECKING:
    import onnx


class LlamaDecoder(Llama):
    """New tokens of one text and the cache of those before -> logits of the token after each, and the cache with the new ones.

    Its parameters have the names of `Llama`'s.
    """

    def forward(  # type: ignore[override]
        self, ids: Tensor, positions: Tensor, past_keys: Tensor, past_values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns logits and the cache.

        Args:
            ids: `(1, n_new)` int64.
            positions: `(n_new,)` int64, which follow those in the cache.
            past_keys: `(n_layers, n_kv_heads, n_past, head_dim)` float32, rotated.
            past_values: As `past_keys`.

        Returns:
            Logits `(1, n_new, vocabulary_size)`; keys and values `(n_layers, n_kv_heads, n_past + n_new, head_dim)`.
        """
        cos, sin = (table[positions] for table in rotary_tables(self.sizes, self.sizes.max_length))
        n_all = past_keys.shape[2] + ids.shape[1]
        future = torch.arange(n_all)[None] > positions[:, None]
        mask = torch.zeros(()).masked_fill(future, float("-inf"))
        x, keys, values = self.embedding(ids), [], []
        for block, past_key, past_value in zip(self.blocks, past_keys, past_values, strict=True):
            assert isinstance(block, Block)
            query, key, value = block.attention.projected(block.attention_norm(x), cos, sin)
            keys.append(torch.cat([past_key[None], key], dim=2))
            values.append(torch.cat([past_value[None], value], dim=2))
            x = x + block.attention.attended(query, keys[-1], values[-1], mask)
            x = x + block.ffn(block.ffn_norm(x))
        return self.logits(self.norm(x)), torch.cat(keys), torch.cat(values)

    def empty_cache(self, n_past: int = 0) -> tuple[Tensor, Tensor]:
        """Returns keys and values of zeros."""
        sizes = self.sizes
        zeros = torch.zeros(sizes.n_layers, sizes.n_kv_heads, n_past, sizes.head_dim)
        return zeros, zeros.clone()


def decoder_of(module: Llama) -> LlamaDecoder:
    """Returns the decoder with a network's weights."""
    decoder = LlamaDecoder(module.sizes)
    decoder.load_state_dict(module.state_dict())
    return decoder.eval()


def export_decoder(decoder: LlamaDecoder) -> "onnx.ModelProto":
    """Returns the decoder as an ONNX file with inputs `INPUTS` and outputs `OUTPUTS`; numbers of tokens are free.

    Weights keep the names of the state dict.
    """
    import onnx_ir as ir
    import onnxscript.optimizer

    new, past = torch.export.Dim("n_new"), torch.export.Dim("n_past")
    arguments = (torch.zeros(1, 3, dtype=torch.int64), torch.arange(3) + 5, *decoder.empty_cache(5))
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            decoder,
            arguments,
            dynamo=True,
            dynamic_shapes=({1: new}, {0: new}, {2: past}, {2: past}),
            input_names=INPUTS,
            output_names=OUTPUTS,
            opset_version=OPSET,
            optimize=False,
            verbose=False,
        )
        assert program is not None
        model = ir.from_proto(program.model_proto)
        fold_constants(model)
        return ir.to_proto(onnxscript.optimizer.optimize(model))
