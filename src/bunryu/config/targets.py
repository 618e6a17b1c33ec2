"""What a ``_target_`` may name: judged by the object it resolves to, not by how it is spelt."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from bunryu.errors import ConfigError
from bunryu.keys import is_below, nearest

# What a config may make of a library: these classes and those that inherit from them.
FAMILIES = {
    "torch": ("optim.Optimizer", "optim.lr_scheduler.LRScheduler"),
    "transformers": ("PreTrainedModel", "PreTrainedConfig"),
    "pytorch_lightning": ("Trainer", "Callback", "loggers.Logger", "profilers.Profiler"),
}
PACKAGES = ("bunryu", *FAMILIES)  # a _target_ starts with one of them; what it resolves to is judged as well
FUNCTIONS = ("bunryu.training.schedules.linear_warmup", "bunryu.training.schedules.cosine_warmup")
# Of Lightning's, what a run cannot be trained or resumed with, and what to use instead.
UNSUITABLE = {
    "BatchSizeFinder": "batch_size=auto",
    "LearningRateFinder": "a sweep: bunryu train -m optimizer.lr=1e-5,3e-5,5e-5",
    "GradientAccumulationScheduler": "trainer.accumulate_grad_batches=<number>",
    "OnExceptionCheckpoint": "nothing: last.ckpt is always kept",
    "SpikeDetection": "nothing: a loss that is not finite ends the run",
    "XLAProfiler": "trainer.profiler=simple",
    **dict.fromkeys(
        ("BackboneFinetuning", "BaseFinetuning", "EMAWeightAveraging", "ModelPruning",
         "StochasticWeightAveraging", "WeightAveraging"), "a callback of your own",
    ),
}  # fmt: skip
# Names further packages or functions. The environment is the user's; a config may be anybody's.
OWN_PACKAGES = "BUNRYU_ALLOWED_TARGETS"
# transformers' own arguments beside those of the architecture; the rest of them is not for a config file.
LOADING = {"attn_implementation", "dtype", "force_download", "local_files_only", "revision"}
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
IMPORTING = (__file__, importlib.__file__)  # frames of a failed import that do not show its cause


def resolve(path: str, where: str) -> Callable[..., Any]:
    """The class or listed function that a dotted path names, if a config may call it.

    The object itself is judged: an alias through an allowed package does not pass. The environment variable
    ``BUNRYU_ALLOWED_TARGETS`` adds a user's own: ``my_models,acme.nlp`` allows every class that is defined
    there or below; a function has to be named itself (``acme.schedules.warm_up``), since a package has many
    that were never meant to be called from a config.
    """
    own = own_packages()
    check_name(path, where, own)
    found = _locate(path, where, (*PACKAGES, *own))
    if not _allowed(found, own):
        raise _refused(path, where)
    if is_below(found.__module__, ("pytorch_lightning",)) and (fix := UNSUITABLE.get(found.__qualname__)):
        raise ConfigError(f"no run trains, or resumes to the bit, with {path}", where=where, fix=fix)
    return found  # type: ignore[no-any-return]


def own_packages() -> tuple[str, ...]:
    """What ``BUNRYU_ALLOWED_TARGETS`` names; Python's own is refused: ``os`` would allow everything."""
    names = tuple(name.strip() for name in os.environ.get(OWN_PACKAGES, "").split(",") if name.strip())
    for name in names:
        if not all(map(_is_public, name.split("."))):
            raise ConfigError(f"'{name}' is no package", where=OWN_PACKAGES, fix="my_models,acme.nlp")
        if name.partition(".")[0] in sys.stdlib_module_names:
            what = f"'{name}' is Python's own and not for a config"
            raise ConfigError(what, where=OWN_PACKAGES, fix="your own packages")
    return names


def _is_public(name: str) -> bool:
    return name.isidentifier() and not name.startswith("_")


def check_name(path: str, where: str, own: tuple[str, ...]) -> None:
    """Refuse a name outside the allowed packages, or with a private part; nothing is imported."""
    if not is_below(path, (*PACKAGES, *own)) or not all(map(_is_public, path.split("."))):
        raise _refused(path, where)


def _locate(path: str, where: str, packages: tuple[str, ...]) -> Any:
    """What a dotted path names, walking through modules of the packages and their classes only."""
    first, *rest = path.split(".")
    found, walked = _imported(first, path, where), first
    for part in rest:
        name = found.__name__ if inspect.ismodule(found) else getattr(found, "__module__", "")
        may_walk = is_below(name, packages) or any(is_below(package, (name,)) for package in packages)
        if not (inspect.ismodule(found) or inspect.isclass(found)) or not may_walk:
            raise _refused(path, where)
        try:
            present = hasattr(found, part)
        except Exception as error:  # transformers' stand-ins for what a missing library would bring
            raise _cannot_be_imported(path, where, error) from error
        if present:
            found = getattr(found, part)
        elif inspect.ismodule(found):
            near = nearest(part, [name for name in dir(found) if not name.startswith("_")])
            found = _imported(f"{found.__name__}.{part}", path, where, near)
        else:
            raise ConfigError(f"'{walked}' has no '{part}'", where=where)
        walked = f"{walked}.{part}"
    return found


def _imported(module: str, path: str, where: str, near: str = "") -> Any:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        raise _cannot_be_imported(path, where, error, near) from error


def _cannot_be_imported(path: str, where: str, error: BaseException, near: str = "") -> ConfigError:
    """The error that an import raised, with the line it was raised in unless that is Python's own."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "<frozen" not in frame.filename]
    at = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames[-1].filename not in IMPORTING else ""
    what = f"'{path}' cannot be imported: {type(error).__name__}: {error}{at}"
    return ConfigError(what, where=where, fix=f"did you mean '{near}'?" if near else "")


def _allowed(found: Any, own: tuple[str, ...]) -> bool:
    """Whether the object may be called from a config, by what it is and where it was defined."""
    module, name = str(getattr(found, "__module__", "")), str(getattr(found, "__qualname__", ""))
    if inspect.isclass(found):
        return is_below(module, ("bunryu", *own)) or issubclass(found, _families(module.partition(".")[0]))
    if inspect.isfunction(found):
        return f"{module}.{name}" in (*FUNCTIONS, *own)
    if inspect.ismethod(found):  # a model class's or AutoTokenizer's from_pretrained
        owner = found.__self__
        return found.__name__ == "from_pretrained" and inspect.isclass(owner) and _loads(owner, own)
    return False


def _loads(owner: type, own: tuple[str, ...]) -> bool:
    import transformers

    if owner in (transformers.AutoTokenizer, transformers.AutoModelForSequenceClassification):
        return True
    defined_here = is_below(owner.__module__, ("transformers", *own))
    return defined_here and issubclass(owner, transformers.PreTrainedModel)


def _families(library: str) -> tuple[type, ...]:
    """The classes of a library that a config may make, with theirs below; only that library is imported."""
    names = FAMILIES.get(library, ())
    return tuple(attrgetter(name)(importlib.import_module(library)) for name in names)


def parameters_of(target: Callable[..., Any]) -> set[str]:
    """The keys a target's signature takes; for transformers' open-ended ones, an architecture's keys."""
    if inspect.ismethod(target):
        from transformers import BertConfig

        if getattr(target.__self__, "__name__", "") == "AutoTokenizer":
            known = {"do_lower_case", "strip_accents", "pad_token"}
            return known | {"revision", "force_download", "local_files_only"}
        return LOADING | parameters_of(BertConfig)
    return {p.name for p in inspect.signature(target).parameters.values() if p.kind in NAMED}


def takes_any(target: Callable[..., Any]) -> bool:
    """Whether it is a user's own and takes ``**keywords``; a library's would swallow a typo."""
    if inspect.ismethod(target) or not is_below(target.__module__, own_packages()):
        return False
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(target).parameters.values())


def _refused(path: str, where: str) -> ConfigError:
    fix = (
        "a class of bunryu, or an optimizer, scheduler, model, callback or logger of torch, transformers or "
        f"pytorch_lightning; or name your own package in the environment variable {OWN_PACKAGES}"
    )
    return ConfigError(f"'{path}' may not be called from a config", where=where, fix=fix)
