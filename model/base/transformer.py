"""The object memory and the query transformer that lets it look at the pixels.

Source:
    Cheng et al. 2023, arXiv:2310.12982 (Cutie), sections 3.2 and 3.3.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.base.blocks import (
    ChannelAttentionBlock,
    PositionCode,
    aggregate,
    full_precision,
    to_grid,
)
from model.base.config import (
    ATTENTION_HEADS,
    FEED_FORWARD_WIDTH,
    QUERIES,
    TRANSFORMER_BLOCKS,
    VALUE_WIDTH,
)

AREA_EPS = 1e-4
TIE_LOG_ODDS = 1e-4


class ObjectSummarizer(nn.Module):
    """Condense a structure's values to 16 vectors, half from its mask, half from the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_enc = PositionCode()
        self.input_proj = nn.Linear(VALUE_WIDTH, VALUE_WIDTH)
        self.feature_pred = nn.Sequential(
            nn.Linear(VALUE_WIDTH, VALUE_WIDTH), nn.ReLU(), nn.Linear(VALUE_WIDTH, VALUE_WIDTH)
        )
        self.weights_pred = nn.Sequential(
            nn.Linear(VALUE_WIDTH, VALUE_WIDTH), nn.ReLU(), nn.Linear(VALUE_WIDTH, QUERIES)
        )

    def forward(self, masks_BNHW: Tensor, value_BNCHW: Tensor) -> Tensor:
        """Summaries to be summed over frames.

        Args:
            masks_BNHW: soft masks at full size.
            value_BNCHW: values on the stride-16 grid.

        Returns:
            objects_BNQC: weighted sums of features; in the last channel, the sum of the weights.
        """
        mask_BNP1 = full_precision(to_grid(masks_BNHW)).flatten(2)[..., None]
        share = (-1, -1, -1, QUERIES // 2)
        mask_BNPQ = torch.cat([mask_BNP1.expand(share), (1 - mask_BNP1).expand(share)], dim=3)
        code_PC = self.pos_enc(*value_BNCHW.shape[3:]).flatten(0, 1)
        value_BNPC = self.input_proj(value_BNCHW.flatten(3).transpose(2, 3)) + code_PC
        value_BNPC = full_precision(value_BNPC)
        weight_BNPQ = torch.sigmoid(self.weights_pred(value_BNPC)) * mask_BNPQ
        sums_BNQC = weight_BNPQ.transpose(2, 3) @ self.feature_pred(value_BNPC)
        return torch.cat([sums_BNQC, weight_BNPQ.sum(dim=2)[..., None]], dim=3)


class Attention(nn.Module):
    """Multi-head attention with one stacked projection for queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * VALUE_WIDTH, VALUE_WIDTH))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * VALUE_WIDTH))
        self.out_proj = nn.Linear(VALUE_WIDTH, VALUE_WIDTH)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, query_SQC: Tensor, key_SPC: Tensor, value_SPC: Tensor, seen_SQP: Tensor | None = None
    ) -> Tensor:
        """Answer every query with a mix of the values.

        Args:
            query_SQC: what asks.
            key_SPC: what is compared with it.
            value_SPC: what is mixed.
            seen_SQP: true where a query may look; all where it is None.
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        inputs = (query_SQC, key_SPC, value_SPC)
        query, key, value = (
            functional.linear(x, weight, bias).unflatten(2, (ATTENTION_HEADS, -1)).transpose(1, 2)
            for x, weight, bias in zip(inputs, weights, biases, strict=True)
        )
        seen = None if seen_SQP is None else seen_SQP[:, None]
        mixed_SMQC = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        answer_SQC: Tensor = self.out_proj(mixed_SMQC.transpose(1, 2).flatten(2))
        return answer_SQC


class ReadFromPixel(nn.Module):
    """Queries look at the pixels that their mask lets them see; the norm comes before the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.cross_attn = Attention()
        self.norm = nn.LayerNorm(VALUE_WIDTH)

    def forward(
        self,
        x_SQC: Tensor,
        x_code_SQC: Tensor,
        pixel_SPC: Tensor,
        code_SPC: Tensor,
        seen_SQP: Tensor,
    ) -> Tensor:
        """Queries after the look."""
        x_SQC = self.norm(x_SQC)
        key_SPC = pixel_SPC + code_SPC
        return x_SQC + self.cross_attn(x_SQC + x_code_SQC, key_SPC, pixel_SPC, seen_SQP)


class SelfAttention(nn.Module):
    """Queries of one structure look at each other; the norm comes before the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = Attention()
        self.norm = nn.LayerNorm(VALUE_WIDTH)

    def forward(self, x_SQC: Tensor, x_code_SQC: Tensor) -> Tensor:
        """Queries after the exchange."""
        x_SQC = self.norm(x_SQC)
        placed_SQC = x_SQC + x_code_SQC
        return x_SQC + self.self_attn(placed_SQC, placed_SQC, x_SQC)


class FeedForward(nn.Module):
    """Two linear layers on each query; only the branch is normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.linear1 = nn.Linear(VALUE_WIDTH, FEED_FORWARD_WIDTH)
        self.linear2 = nn.Linear(FEED_FORWARD_WIDTH, VALUE_WIDTH)
        self.norm = nn.LayerNorm(VALUE_WIDTH)

    def forward(self, x_SQC: Tensor) -> Tensor:
        """Same shape out as in."""
        return x_SQC + self.linear2(functional.relu(self.linear1(self.norm(x_SQC))))


class ReadFromQuery(nn.Module):
    """Pixels look at the queries, without a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.cross_attn = Attention()

    def forward(
        self, pixel_SPC: Tensor, code_SPC: Tensor, x_SQC: Tensor, x_code_SQC: Tensor
    ) -> Tensor:
        """Pixels after the look."""
        return pixel_SPC + self.cross_attn(pixel_SPC + code_SPC, x_SQC + x_code_SQC, x_SQC)


class PixelFeedForward(nn.Module):
    """The channel attention block that closes a transformer block on the pixel side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ChannelAttentionBlock()

    def forward(self, pixel_SCHW: Tensor) -> Tensor:
        """Same shape out as in."""
        y_SCHW: Tensor = self.conv(pixel_SCHW)
        return y_SCHW


class TransformerBlock(nn.Module):
    """Queries read the pixels and each other, then the pixels read the queries."""

    def __init__(self) -> None:
        super().__init__()
        self.read_from_pixel = ReadFromPixel()
        self.self_attn = SelfAttention()
        self.ffn = FeedForward()
        self.read_from_query = ReadFromQuery()
        self.pixel_ffn = PixelFeedForward()

    def forward(
        self, x_SQC: Tensor, pixel_SCHW: Tensor, codes: tuple[Tensor, Tensor], seen_SQP: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Queries and pixels after one exchange; ``codes`` are theirs, as SQC and SPC."""
        x_code_SQC, code_SPC = codes
        grid = pixel_SCHW.shape[2:]
        pixel_SPC = pixel_SCHW.flatten(2).transpose(1, 2)
        x_SQC = self.read_from_pixel(x_SQC, x_code_SQC, pixel_SPC, code_SPC, seen_SQP)
        x_SQC = self.ffn(self.self_attn(x_SQC, x_code_SQC))
        pixel_SPC = self.read_from_query(pixel_SPC, code_SPC, x_SQC, x_code_SQC)
        return x_SQC, self.pixel_ffn(pixel_SPC.transpose(1, 2).unflatten(2, grid))


def seen_by_queries(logits_BNHW: Tensor) -> Tensor:
    """Where each query may look: the first half at the foreground, the second at the rest.

    A structure's foreground is where no other structure and not the background is more likely. Two
    structures count as equally likely within ``TIE_LOG_ODDS``: as published, structures start from
    the same empty mask and stay twins for ever, and rounding must not choose between them. A query
    that would see nothing sees everything.

    Args:
        logits_BNHW: foreground log-odds of each structure.

    Returns:
        seen_SQP, bool.
    """
    odds_BNHW = aggregate(torch.sigmoid(logits_BNHW))
    background_B1HW, structures_BNHW = odds_BNHW[:, :1], odds_BNHW[:, 1:]
    strongest_B1HW = structures_BNHW.amax(dim=1, keepdim=True)
    foreground_BNHW = (structures_BNHW >= background_B1HW) & (
        structures_BNHW >= strongest_B1HW - TIE_LOG_ODDS
    )
    foreground_S1P = foreground_BNHW.flatten(0, 1).flatten(1)[:, None]
    half = (-1, QUERIES // 2, -1)
    seen_SQP = torch.cat([foreground_S1P.expand(half), (~foreground_S1P).expand(half)], dim=1)
    return seen_SQP | ~seen_SQP.any(dim=2, keepdim=True)


class QueryTransformer(nn.Module):
    """Refine the pixels of every structure with what its object memory knows."""

    def __init__(self) -> None:
        super().__init__()
        self.query_init = nn.Embedding(QUERIES, VALUE_WIDTH)
        self.query_emb = nn.Embedding(QUERIES, VALUE_WIDTH)
        self.summary_to_query_init = nn.Linear(VALUE_WIDTH, VALUE_WIDTH)
        self.summary_to_query_emb = nn.Linear(VALUE_WIDTH, VALUE_WIDTH)
        self.pixel_init_proj = nn.Conv2d(VALUE_WIDTH, VALUE_WIDTH, 1)
        self.pixel_emb_proj = nn.Conv2d(VALUE_WIDTH, VALUE_WIDTH, 1)
        self.spatial_pe = PositionCode()
        self.blocks = nn.ModuleList(TransformerBlock() for _ in range(TRANSFORMER_BLOCKS))
        self.mask_pred = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Conv2d(VALUE_WIDTH, 1, 1))
            for _ in range(TRANSFORMER_BLOCKS + 1)
        )

    def forward(self, pixel_BNCHW: Tensor, objects_BNQC: Tensor) -> tuple[Tensor, Tensor]:
        """Refine the pixels.

        Args:
            pixel_BNCHW: fused pixel features of each structure.
            objects_BNQC: summaries summed over frames, the weight sum in the last channel.

        Returns:
            pixel_BNCHW refined, and query_logits_BNLHW, the L = 4 drafts of the mask on the way.
        """
        batch_structures = pixel_BNCHW.shape[:2]
        x_SQC, x_code_SQC = self._queries(objects_BNQC.flatten(0, 1))
        raw_SCHW = pixel_BNCHW.flatten(0, 1)
        pixel_SCHW = self.pixel_init_proj(raw_SCHW)
        code_PC = self.spatial_pe(*raw_SCHW.shape[2:]).flatten(0, 1)
        code_SPC = code_PC + self.pixel_emb_proj(raw_SCHW).flatten(2).transpose(1, 2)
        logits = [self.mask_pred[0](pixel_SCHW).view(*batch_structures, *raw_SCHW.shape[2:])]
        for block, predict in zip(self.blocks, self.mask_pred[1:], strict=True):
            seen_SQP = seen_by_queries(logits[-1])
            x_SQC, pixel_SCHW = block(x_SQC, pixel_SCHW, (x_code_SQC, code_SPC), seen_SQP)
            logits.append(predict(pixel_SCHW).view(*batch_structures, *raw_SCHW.shape[2:]))
        return pixel_SCHW.unflatten(0, batch_structures), torch.stack(logits, dim=2)

    def _queries(self, objects_SQC: Tensor) -> tuple[Tensor, Tensor]:
        mean_SQC = objects_SQC[..., :-1] / (objects_SQC[..., -1:] + AREA_EPS)
        mean_SQC = mean_SQC.to(self.query_init.weight.dtype)
        x_SQC = self.query_init.weight + self.summary_to_query_init(mean_SQC)
        return x_SQC, self.query_emb.weight + self.summary_to_query_emb(mean_SQC)
