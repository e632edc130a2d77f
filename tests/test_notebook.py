"""A sweep in a real notebook kernel: a class of a cell travels to the workers by value."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from support import toy

RUN = """
import hybrid_sweep as hs

class Mine(Toy):
    def evaluate(self, model, split):
        return super().evaluate(model, split)

sweep = hs.Sweep(
    Mine,
    space={"max_predict_steps": [10, 20], "confidence_threshold": hs.Range(0.001, 0.5)},
    trials=2, steps=60, controls="none", mask=None, concurrency=1,
)
results = sweep.run("results", callbacks=[hs.ProgressBar()])
"""


@pytest.mark.ray
def test_a_class_of_a_cell_is_trained_and_its_results_are_shown(tmp_path):
    cells = [Path(toy.__file__).read_text(), RUN, "results", "results.best.config", "results.plot_front()"]
    cells += ["hs.resume('results', trials=3).trials.state.tolist()"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [cell["outputs"] for cell in notebook.cells]
    lines = [each.get("text", "") or each["data"]["text/plain"] for each in outputs[1]]
    assert any("2 runs, 1 at a time, results in" in line for line in lines), lines
    shown = outputs[2][-1]["data"]
    assert "on the front" in shown["text/plain"]
    assert "<table" in shown["text/html"]
    assert "HybridConfig" in outputs[3][-1]["data"]["text/plain"] or "max_predict_steps" in str(outputs[3])
    assert "application/vnd.plotly.v1+json" in outputs[4][-1]["data"]
    assert outputs[5][-1]["data"]["text/plain"] == "['done', 'done', 'done']"
