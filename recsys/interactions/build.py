"""From an interaction's config to its layer."""

from __future__ import annotations

from recsys._compat import keras, tf
from recsys.interactions.arm_net import ARMNet
from recsys.interactions.attention import TargetAttention
from recsys.interactions.attention_pooling import AttentionPooling
from recsys.interactions.autoint import AutoInt
from recsys.interactions.config import (
    ARMNetConfig,
    AttentionConfig,
    AttentionPoolingConfig,
    AutoIntConfig,
    CrossConfig,
    DINConfig,
    EncoderConfig,
    FieldInteractionConfig,
    FMConfig,
    GRUConfig,
    MeanPoolingConfig,
    SequenceConfig,
    TransformerConfig,
)
from recsys.interactions.cross import CrossNetwork
from recsys.interactions.din import DIN
from recsys.interactions.fm import FM
from recsys.interactions.gru import GRU
from recsys.interactions.mean_pooling import MeanPooling
from recsys.interactions.transformer import CausalTransformer


def make_cross(config: CrossConfig, seed: int, name: str) -> CrossNetwork:
    """[B, n] -> [B, n]."""
    return CrossNetwork(config, seed, name)


def make_field_interaction(
    config: FieldInteractionConfig, seed: int, step: tf.Variable, name: str
) -> keras.layers.Layer:
    """[B, F, D] -> [B, m]."""
    match config:
        case AutoIntConfig():
            return AutoInt(config, seed, step, name)
        case FMConfig():
            return FM(config, seed, step, name)
        case ARMNetConfig():
            return ARMNet(config, seed, step, name)


def make_sequence_layer(
    config: SequenceConfig, decoupled: bool, seed: int, name: str
) -> DIN | TargetAttention | MeanPooling:
    """Targets, histories and masks -> what the history says of the target."""
    match config:
        case DINConfig():
            return DIN(config, seed, name)
        case AttentionConfig():
            return TargetAttention(config, seed, decoupled, name)
        case MeanPoolingConfig():
            return MeanPooling(name=name)


def make_encoder(
    config: EncoderConfig, length: int, seed: int, step: tf.Variable, name: str
) -> AttentionPooling | GRU | CausalTransformer:
    """Histories [B, T, D] of up to `length` events, and masks -> [B, T, m], a state after each event."""
    match config:
        case AttentionPoolingConfig():
            return AttentionPooling(config, length, seed, name)
        case GRUConfig():
            return GRU(config, seed, step, name)
        case TransformerConfig():
            return CausalTransformer(config, length, seed, step, name)
