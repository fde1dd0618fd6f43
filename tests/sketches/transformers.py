# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Discriminators with attention: images [N, 3, 64, 64] -> logits [N, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Between tokens [N, L, C]; queries and keys [N, heads, L, C / heads] pass layers, and so do weights."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.q_norm, self.k_norm, self.attn_drop = nn.Identity(), nn.Identity(), nn.Dropout(0.1)
        self.talk = nn.Conv2d(heads, heads, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = self.talk(self.q_norm(q) @ self.k_norm(k).transpose(2, 3))
        return self.proj((self.attn_drop(scores.softmax(dim=3)) @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(dim), Attention(dim, heads), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Dosovitskiy et al. 2020, arXiv:2010.11929, with a class token or without."""

    def __init__(self, patch: int, dim: int = 64, heads: int = 4, token: bool = True) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, patch, patch)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim)) if token else None
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(3)))
        self.head = nn.Linear(dim, 1)

    def forward(self, img: Tensor) -> Tensor:
        x = self.patch_embed(img).flatten(2).transpose(1, 2)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        return self.head(self.blocks(x)[:, 0])


class Swin(nn.Module):
    """Liu et al. 2021, arXiv:2103.14030: attention inside windows of channels-last maps, which halve between stages."""

    class Block(Block):
        def forward(self, x: Tensor) -> Tensor:
            windows = x.unfold(1, 4, 4).unfold(2, 4, 4).flatten(4).transpose(3, 4)  # [N, H/4, W/4, 16, C]
            x = x + self.back(self.attn(self.norm1(windows.flatten(0, 2))), windows.shape)
            return x + self.mlp(self.norm2(x))

        @staticmethod
        def back(windows: Tensor, shape: torch.Size) -> Tensor:
            n, h, w, _, c = shape
            return windows.view(n, h, w, 4, 4, c).transpose(2, 3).reshape(n, 4 * h, 4 * w, c)

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, 32, 4, 4)
        self.stages = nn.ModuleList(self.Block(dim, 4) for dim in (32, 64, 128))
        self.merges = nn.ModuleList(nn.Linear(4 * dim, 2 * dim) for dim in (32, 64))
        self.head = nn.Linear(128, 1)

    def forward(self, img: Tensor) -> Tensor:
        x = self.proj(img).permute(0, 2, 3, 1)
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i < 2:
                x = self.merges[i](torch.cat([x[:, top::2, left::2] for top in (0, 1) for left in (0, 1)], dim=3))
        return self.head(x.mean(dim=(1, 2)))


class Hybrid(nn.Module):
    """Convolutions down to 8x8, attention there, and convolutions again."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = (
            nn.Sequential(nn.Conv2d(a, b, 4, 2, 1), nn.ReLU(True)) for a, b in ((3, 32), (32, 48))
        )
        self.down3, self.block = nn.Conv2d(48, 64, 4, 2, 1), Block(64, 4)
        self.down4, self.head = nn.Conv2d(64, 64, 4, 2, 1), nn.Linear(64, 1)

    def forward(self, img: Tensor) -> Tensor:
        x = self.down3(self.down2(self.down1(img)))
        tokens = self.block(x.flatten(2).transpose(1, 2))
        x = self.down4(tokens.transpose(1, 2).unflatten(2, (8, 8)))
        return self.head(x.relu().mean(dim=(2, 3)))


TRANSFORMERS = {
    "ViT": lambda: ViT(patch=8),
    "ViT of large patches": lambda: ViT(patch=16, dim=96),
    "ViT without a class token": lambda: ViT(patch=8, token=False),
    "Swin": Swin,
    "convolutions and attention": Hybrid,
}
