# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The Fisher diagonal by other libraries, used as their documentation says; versions are in `requirements.txt`."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.benchmarks.methods import Method, Run, Squares, loss, split, trainable
from tests.benchmarks.models import Batch, LogLikelihood


def backpack(model: nn.Module, log_likelihood: LogLikelihood) -> Run:
    from backpack import backpack, extend
    from backpack.extensions import SumGradSquared

    # Leaf modules only: BackPACK writes `module.output`, which many transformers models use as a submodule's name.
    for module in model.modules():
        if not any(module.children()):
            extend(module)

    def run(batch: Batch) -> Squares:
        with backpack(SumGradSquared()):
            loss(model, log_likelihood, batch).backward()
        model.zero_grad()
        parameters = trainable(model).items()
        return {name: p.__dict__.pop("sum_grad_squared") for name, p in parameters if hasattr(p, "sum_grad_squared")}

    return run


def opacus(model: nn.Module, log_likelihood: LogLikelihood) -> Run:
    from opacus import GradSampleModule

    # Opacus computes nothing in eval mode.
    wrapped = GradSampleModule(model.train(), loss_reduction="sum")

    def run(batch: Batch) -> Squares:
        loss(wrapped, log_likelihood, batch).backward()
        sums = {}
        for name, parameter in trainable(model).items():
            if parameter.grad_sample is not None:
                sums[name] = parameter.grad_sample.square().sum(0)
            parameter.grad_sample = None
        model.zero_grad()
        return sums

    return run


def nngeometry(model: nn.Module, log_likelihood: LogLikelihood) -> Run:
    from nngeometry.backend import TorchHooksJacobianBackend
    from nngeometry.layercollection import LayerCollection
    from nngeometry.object import PMatDiag

    layers = LayerCollection.from_model(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def run(batch: Batch) -> Squares:
        def scores(*values: torch.Tensor) -> torch.Tensor:
            inputs, labels = split(dict(zip(batch, values, strict=True)))
            return log_likelihood(model(**inputs), labels)[:, None]

        backend = TorchHooksJacobianBackend(model=model, function=scores, layer_collection=layers)
        size = len(batch["labels"])
        examples = DataLoader(TensorDataset(*batch.values()), batch_size=size)
        diagonal = PMatDiag(generator=backend, examples=examples).get_diag() * size
        sums = {}
        for layer, start in layers.p_pos.items():
            for parameter in (backend.l_to_m[layer].weight, backend.l_to_m[layer].bias):
                if parameter is not None:
                    sums[names[id(parameter)]] = diagonal[start : start + parameter.numel()].view_as(parameter)
                    start += parameter.numel()
        return sums

    return run


def asdl(model: nn.Module, log_likelihood: LogLikelihood) -> Run:
    from asdl import FISHER_EMP, SHAPE_DIAG, FisherConfig, get_fisher_maker

    maker = get_fisher_maker(model, FisherConfig(FISHER_EMP, [SHAPE_DIAG], data_size=1))

    def run(batch: Batch) -> Squares:
        maker.setup_loss_repr(maker.setup_model_call(loss, model, log_likelihood, batch))
        maker.forward_and_backward()
        sums = {}
        for prefix, module in model.named_modules():
            diagonal = getattr(getattr(module, "fisher", None), "diag", None)
            for name in ("weight", "bias"):
                if getattr(diagonal, name, None) is not None:
                    sums[f"{prefix}.{name}"] = getattr(diagonal, name).view_as(getattr(module, name))
        maker.zero_fisher()
        model.zero_grad()
        return sums

    return run


PEERS: dict[str, Method] = {
    "BackPACK SumGradSquared": backpack,
    "Opacus GradSampleModule": opacus,
    "NNGeometry PMatDiag": nngeometry,
    "ASDL empirical diagonal": asdl,
}
