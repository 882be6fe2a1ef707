"""Every sampler config instantiates its class, and its header matches its name."""

from importlib import import_module
from pathlib import Path

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution

import conf
from search.samplers.candidates.context import Bindable, SamplerContext
from search.samplers.cmaes import CmaEsSampler
from search.samplers.gp import GpSampler
from search.samplers.quantune import QuantuneSampler
from spaces.errors import ConfigError

FILES = sorted((Path(conf.__file__).parent / "sampler").glob("*.yaml"))


def make(path):
    config = OmegaConf.merge({"root": OmegaConf.load(path), "seed": 3})
    settings = OmegaConf.to_container(config, resolve=True)["root"]
    module, _, name = settings.pop("_target_").rpartition(".")
    return getattr(import_module(module), name)(**settings), settings, module


def test_all_samplers_have_a_config():
    names = {path.stem for path in FILES}
    assert names >= {
        "random", "tpe", "gp", "nsga2", "nsga3", "qmc", "cmaes", "brute_force", "grid", "quantune", "quantune_transfer",
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config(path):
    assert path.read_text().startswith(f"# paredown sampler={path.stem}\n")
    raw = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert raw["seed"] == "${seed}"
    sampler, settings, module = make(path)
    assert isinstance(sampler, optuna.samplers.BaseSampler)
    assert settings["seed"] == 3
    assert module == "optuna.samplers" or path.stem.startswith(module.rpartition(".")[2])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_categorical_space_is_searched(path):
    study = optuna.create_study(direction="maximize", sampler=make(path)[0])
    for _ in range(9):
        trial = study.ask()
        values = [trial.suggest_categorical(name, ["x", "y", None]) for name in "ab"]
        study.tell(trial, float(values.count("x")))
    assert len(study.trials) == 9


def test_the_two_quantune_configs_differ_in_transfer_only():
    one, two = (make(path)[1] for path in FILES if path.stem.startswith("quantune"))
    assert {key for key in one if one[key] != two[key]} == {"transfer"}
    assert two["transfer"] is True
    assert isinstance(QuantuneSampler(), Bindable)
    assert not isinstance(optuna.samplers.RandomSampler(), Bindable)


def test_cmaes_refuses_several_objectives_and_categorical_spaces():
    numbers = {"x": FloatDistribution(0, 1), "y": CategoricalDistribution([1, 2])}
    CmaEsSampler().bind(SamplerContext(distributions=numbers))
    with pytest.raises(ConfigError, match="one objective, but the study has 2"):
        CmaEsSampler().bind(SamplerContext(directions=("maximize", "minimize")))
    with pytest.raises(ConfigError, match="only choices"):
        CmaEsSampler().bind(SamplerContext(distributions={"y": numbers["y"]}))


def test_optuna_still_has_the_attributes_that_the_gaussian_process_sets():
    plain = vars(optuna.samplers.GPSampler())
    assert {"_n_local_search", "_n_qmc_samples_ehvi"} <= plain.keys()
    ours = vars(GpSampler(n_local_search=3, n_qmc_samples=8))
    assert (ours["_n_local_search"], ours["_n_qmc_samples_ehvi"]) == (3, 8)


def test_the_gaussian_process_needs_two_starts():
    with pytest.raises(ConfigError, match=r"sampler.n_local_search must be at least 2, not 1"):
        GpSampler(n_local_search=1)


def test_the_gaussian_process_restores_the_number_of_threads():
    import torch

    before = torch.get_num_threads()
    study = optuna.create_study(sampler=GpSampler(n_startup_trials=1, seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    assert torch.get_num_threads() == before
