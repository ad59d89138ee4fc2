"""Train HGNN-IMA on your own tables from Python: build the graph, fit, look at what the model says.

python examples/train_without_the_command_line.py
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import torch

from hgmm.graph import GraphBuilder, MultimodalGraph
from hgmm.models import HGNNIMA
from hgmm.training import Callback, EpochRecord, NodeClassificationTask, TrainConfig, Trainer


def make_tables(items: int = 300, users: int = 60) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return items, users and purchases; a third of the titles is missing."""
    generator = np.random.default_rng(0)
    kind = generator.integers(3, size=items)
    titles = np.array(["steel kettle", "woollen scarf", "oak chair"])[kind].astype(object)
    titles[generator.random(items) < 1 / 3] = None
    item = pd.DataFrame(
        {
            "id": [f"item-{n}" for n in range(items)],
            "label": np.array(["kitchen", "clothes", "furniture"])[kind],
            "price": generator.normal(size=items) + kind,
            "title": titles,
        }
    )
    user = pd.DataFrame({"id": [f"user-{n}" for n in range(users)]})
    taste = generator.integers(3, size=users)
    bought = generator.integers(items, size=4 * items)
    # Most purchases are to the buyer's taste, so that buyers tell something about what they buy.
    fitting = [np.flatnonzero(taste == k) for k in range(3)]
    buyers = [
        generator.choice(fitting[kind[n]]) if generator.random() < 0.8 else generator.integers(users) for n in bought
    ]
    buys = pd.DataFrame({"user": [f"user-{n}" for n in buyers], "item": [f"item-{n}" for n in bought]})
    return item, user, buys.drop_duplicates()


def make_graph() -> MultimodalGraph:
    """Turn the tables into a graph; text becomes hashed character n-grams, numbers are scaled."""
    item, user, buys = make_tables()
    builder = GraphBuilder("item", name="shop")
    builder.add_nodes(
        "item",
        item,
        id="id",
        label="label",
        split={"train": 0.3, "val": 0.2, "test": 0.5, "seed": 0},
        modalities={"text": {"column": "title"}, "numeric": {"columns": ["price"]}},
    )
    builder.add_nodes("user", user, id="id")
    builder.add_edges(("user", "buys", "item"), buys, src="user", dst="item", reverse="bought_by")
    return builder.build()


class Print(Callback):
    """One line every ten epochs."""

    def on_epoch_end(self, record: EpochRecord) -> None:
        if record.epoch % 10 == 0:
            print(f"epoch {record.epoch:3d}  loss {record.loss:.3f}  validation {record.val['micro_f1']:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    epochs = parser.parse_args().epochs

    graph = make_graph()
    torch.manual_seed(0)
    model = HGNNIMA(graph.schema, hidden_size=32, num_heads=4)
    task = NodeClassificationTask(monitor="macro_f1")
    config = TrainConfig(epochs=epochs, learning_rate=5e-3, device="cpu")
    result = Trainer(model, task, config, callbacks=[Print()]).fit(graph)
    print(f"best epoch {result.best_epoch}, test macro-F1 {result.test['macro_f1']:.3f}")

    model.eval()
    with torch.no_grad():
        output = model(graph.g, graph.test_idx[:3])
    for node, logits in zip(graph.test_idx[:3].tolist(), output.logits, strict=True):
        print(f"{graph.node_ids['item'][node]}: {graph.schema.classes[int(logits.argmax())]}")


if __name__ == "__main__":
    main()
