import subprocess
import sys
from importlib import import_module

import pytest

from search.planning.builders import builders_digest
from spaces.code_digest import code_digest
from spaces.models.export import ExportStage
from spaces.models.torch_checkpoint import TorchModel
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.pipeline import stage_key
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split
from spaces.stages.torch_artifact import module_digest

PACKAGE = {
    "__init__": "",
    "net": """
import torch
from users_package import inner

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.act = inner.act_of()

    def forward(self, x):
        return self.act(x)
""",
    "inner": """
def act_of():
    from .deep.act import Act
    return Act()
""",
    "deep/__init__": "",
    "deep/act": """
import torch
from users_package.deep.sign import SIGN

class Act(torch.nn.Module):
    def forward(self, x):
        return SIGN * x
""",
    "deep/sign": "SIGN = 1",
    "stage": """
from spaces.models.export import ExportStage
from users_package import inner

class MyExport(ExportStage):
    name = "mine"
""",
    "unused": "1",
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes the package with changes into a new folder, and drops the one that was imported before."""
    folders = []

    def forget():
        for name in [name for name in sys.modules if name.startswith("users_package")]:
            del sys.modules[name]

    def written(**changes):
        forget()
        folders.append(tmp_path / str(len(folders)))
        for name, text in {**PACKAGE, **changes}.items():
            path = folders[-1] / "users_package" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.syspath_prepend(folders[-1])
        return folders[-1]

    yield written
    forget()


CHANGES = [
    {},
    {"net": PACKAGE["net"].replace("self.act(x)", "-self.act(x)")},
    {"inner": f"{PACKAGE['inner']}\n"},
    {"deep/act": PACKAGE["deep/act"].replace("SIGN * x", "SIGN + x")},
    {"deep/sign": "SIGN = -1"},
    {"__init__": "import users_package.unused"},
]


def test_a_networks_digest_covers_all_code_that_it_imports(write):
    found = []
    for change in (*CHANGES, {"unused": "2"}):
        write(**change)
        net = import_module("users_package.net").Net()
        found.append(module_digest(net))
    assert len(set(found)) == len(CHANGES)
    assert found[-1] == found[0]  # nobody imports it


def test_folders_without_init_within_each_other_are_covered_before_they_are_imported(write):
    inner = "def act_of():\n    from users_package.plain.plainer.act import Act\n    return Act()\n"
    found = []
    for sign in ("", "-"):
        write(
            **{
                "inner": inner,
                "plain/plainer/act": PACKAGE["deep/act"].replace("SIGN * x", f"{sign}SIGN * x"),
            }
        )
        found.append(code_digest(import_module("users_package.inner").act_of))
    assert found[0] != found[1]


def test_a_stages_keys_cover_the_helpers_that_it_imports(write):
    keys, prefixes = [], []
    start = TorchModel("torch.nn.ReLU", None, [3], trusted_modules=["torch"]).build()
    from spaces.stages.torch_artifact import torch_artifact

    artifact = torch_artifact(start, InputSpec((3,)))
    for sign in ("SIGN = 1", "SIGN = -1"):
        write(**{"deep/sign": sign})
        stage = import_module("users_package.stage").MyExport()
        keys.append(stage_key(stage, artifact, {}, StageContext(noise_split((3,)), Cache())))
        prefixes.append(builders_digest([ExportStage(), stage]))
    assert keys[0] != keys[1]
    assert prefixes[0] != prefixes[1]


def test_the_digest_is_equal_in_every_process_and_folder(write):
    script = (
        "import sys; from users_package.net import Net; from spaces.stages.torch_artifact import module_digest;"
        "net = Net(); net.names = {'a', 'b', 'c'}; net.test = lambda x: x in {'a', 'b', 'c'};"
        "print(module_digest(net))"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            cwd=write(), env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": "."},
            capture_output=True, check=True,
        ).stdout
        for seed in range(2)
    }  # fmt: skip
    assert len(digests) == 1


def test_computing_the_digest_imports_nothing(write):
    write(
        unused="raise AssertionError('imported')",
        net=f"{PACKAGE['net']}\ndef late():\n    import users_package.unused\n",
    )
    code_digest(import_module("users_package.net").Net)
    assert "users_package.unused" not in sys.modules


def test_the_digest_includes_versions_of_installed_packages(write, monkeypatch):
    found = []
    for version in ("1", "2"):
        write(inner=f"import optuna\n{PACKAGE['inner']}")
        monkeypatch.setattr("spaces.code_digest.metadata.version", lambda _, version=version: version)
        found.append(code_digest(import_module("users_package.net").Net))
    assert found[0] != found[1]


def test_the_digest_of_a_class_without_a_file_includes_its_functions():
    found = []
    for sign in "+-":
        names = {"__name__": "typed_at_a_prompt"}
        exec(f"class Net:\n    def forward(self, x):\n        return {sign}x", names)
        found.append(code_digest(names["Net"]))
    assert found[0] != found[1]
