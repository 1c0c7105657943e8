"""The logit lens reads each layer with the model's own head, and ends with the model's own prediction."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpt_toy import FAMILIES, ids, toy
from gptkit.inspect.lens import lens_of
from gptkit.inspect.loss import loss_of
from gptkit.inspect.trace import trace

LENGTH = 12


@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_each_row_is_the_head_on_a_layer_s_hidden_states(pre_norm: bool) -> None:
    model, row = toy(pre_norm), ids(1, LENGTH)[0]
    with torch.no_grad():
        outputs = model(input_ids=row[None], output_hidden_states=True)
    logits = outputs.logits[0]
    loss = loss_of(logits, row)
    targets = torch.from_numpy(loss.targets)
    lens = lens_of(model, trace(model, row.tolist()), logits, targets)
    own = logits.log_softmax(-1)
    for layer, hidden in enumerate(outputs.hidden_states[:-1]):
        read = model.transformer.ln_f(hidden[0]) if pre_norm else hidden[0]
        seen = model.lm_head(read).log_softmax(-1).detach()
        assert (lens.top_ids[layer, :, 0] == seen.argmax(-1).numpy()).all()
        np.testing.assert_allclose(lens.top_probabilities[layer, :, 0], seen.exp().amax(-1), atol=1e-5)
        np.testing.assert_allclose(lens.kl[layer], (own.exp() * (own - seen)).sum(-1), atol=1e-4)
        better = seen > seen.gather(1, targets[:, None])
        assert (lens.rank[layer] == 1 + better.sum(-1).numpy()).all()
    np.testing.assert_allclose(lens.kl[-1], 0, atol=1e-5)
    assert (lens.rank[-1] == loss.rank).all()
    assert (lens.top_ids[-1] == loss.top_ids).all()
