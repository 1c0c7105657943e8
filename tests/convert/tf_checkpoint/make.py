"""Makes the checkpoint that is kept here, once, with TensorFlow 2.21 in an environment of its own: python make.py.

It has the files and variable names of OpenAI's GPT-2, and beside the weights an optimizer's slot and a step, in shards.
logits.npy (sequence, position, vocab) is what TensorFlow computes from it for the ids in ids.json.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf

HPARAMS = {"n_vocab": 264, "n_ctx": 16, "n_embd": 8, "n_head": 2, "n_layer": 2}
MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ("o", "r"), ("Ġw", "or")]
SEQUENCES = 1
v1 = tf.compat.v1


def main() -> None:
    os.chdir(Path(__file__).parent)
    Path("hparams.json").write_text(json.dumps(HPARAMS))
    write_tokenizer()
    ids = np.random.default_rng(1).integers(HPARAMS["n_vocab"], size=(SEQUENCES, HPARAMS["n_ctx"]))
    Path("ids.json").write_text(json.dumps(ids.tolist()))
    with tf.Graph().as_default(), v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
        logits = gpt2(tf.constant(ids))
        saver = v1.train.Saver(sharded=True, write_version=v1.train.SaverDef.V2)
        session.run(v1.global_variables_initializer())
        saver.save(session, "./model.ckpt", write_meta_graph=False)
        np.save("logits.npy", session.run(logits))


def write_tokenizer() -> None:
    """Write the 256 bytes as GPT-2 orders and spells them, the merges and the end of text."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    pieces = [*map(chr, printable), *(chr(256 + number) for number in range(len(others)))]
    pieces += ["".join(merge) for merge in MERGES] + ["<|endoftext|>"]
    Path("encoder.json").write_text(json.dumps({piece: id for id, piece in enumerate(pieces)}))
    lines = ["#version: 0.2", *map(" ".join, MERGES)]
    Path("vocab.bpe").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def variable(name: str, *shape: int, device: str = "/cpu:0") -> tf.Tensor:
    seed = zlib.crc32(f"{v1.get_variable_scope().name}/{name}".encode()) % 2**31
    with tf.device(device):
        return v1.get_variable(name, shape, initializer=v1.random_normal_initializer(stddev=0.5, seed=seed))


def gpt2(ids: tf.Tensor) -> tf.Tensor:
    """Return the logits (sequence, position, vocab) of GPT-2 (Radford et al. 2019, section 2.3)."""
    width, length = HPARAMS["n_embd"], HPARAMS["n_ctx"]
    with v1.variable_scope("model"):
        tokens = variable("wte", HPARAMS["n_vocab"], width, device="/cpu:1")
        hidden = tf.gather(tokens, ids) + variable("wpe", length, width)
        for layer in range(HPARAMS["n_layer"]):
            with v1.variable_scope(f"h{layer}"):
                hidden += attention(norm(hidden, "ln_1"))
                inner = product(norm(hidden, "ln_2"), "mlp/c_fc", 4 * width)
                hidden += product(tf.nn.gelu(inner, approximate=True), "mlp/c_proj", width)
        variable("wte/Adam", HPARAMS["n_vocab"], 1)
        logits = tf.matmul(norm(hidden, "ln_f"), tokens, transpose_b=True)
    v1.get_variable("global_step", (), tf.int64, initializer=v1.zeros_initializer())
    return logits


def norm(x: tf.Tensor, name: str) -> tf.Tensor:
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return (x - mean) / tf.sqrt(variance + 1e-5) * variable(f"{name}/g", x.shape[-1]) + variable(
        f"{name}/b", x.shape[-1]
    )


def product(x: tf.Tensor, name: str, width: int) -> tf.Tensor:
    return tf.matmul(x, variable(f"{name}/w", 1, x.shape[-1], width)[0]) + variable(f"{name}/b", width)


def attention(x: tf.Tensor) -> tf.Tensor:
    heads, length, width = HPARAMS["n_head"], HPARAMS["n_ctx"], HPARAMS["n_embd"]
    fused = tf.reshape(product(x, "attn/c_attn", 3 * width), (SEQUENCES, length, 3, heads, width // heads))
    query, key, value = tf.unstack(tf.transpose(fused, (2, 0, 3, 1, 4)))  # each (sequence, head, position, head_dim)
    scores = tf.matmul(query, key, transpose_b=True) / np.sqrt(width // heads)
    future = np.triu(np.full((length, length), -1e10, np.float32), 1)
    attended = tf.matmul(tf.nn.softmax(scores + future), value)
    merged = tf.reshape(tf.transpose(attended, (0, 2, 1, 3)), (SEQUENCES, length, width))
    return product(merged, "attn/c_proj", width)


if __name__ == "__main__":
    main()
