"""Mistakes in study files, and the words that the error of each must have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

FILE = "study.toml"

VALID = """\
name = "study"
seed = 17

[data]
dataset = "fashion-mnist"
validation_images = 10_000

[budget]
trials = 20

[sampler]
kind = "tpe"

[pruner]
kind = "median"

[space]
model = { choices = ["cnn", "lenet5"] }
optimizer = { choices = ["sgd", "adam"] }
schedule = "constant"
batch_size = { choices = [64, 128] }
dropout = { float = [0.0, 0.5] }
epochs = { int = [3, 5] }

[space.cnn]
filters1 = { int = [16, 64], step = 16 }

[space.sgd]
lr = { float = [1e-3, 3e-1], log = true }
momentum = { float = [0.0, 0.99] }

[space.adam]
lr = { float = [1e-4, 1e-2], log = true }

[[baseline]]
model = "lenet5"
optimizer = "sgd"
epochs = 5
"""


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A study file with one mistake.

    Attributes:
        says: words of the message or its hint: the key, the rule or value, and the fix.
        files: component files in the same folder, by name.
    """

    name: str
    text: str
    says: tuple[str, ...]
    files: tuple[tuple[str, str], ...] = ()


def study(changes: dict[str, str], *, more: str = "") -> str:
    """VALID with changed lines.

    Args:
        changes: heading to lines, each of which replaces the line of its key or is added;
            `-key` drops one, `-` the whole section.
        more: text at the end.
    """
    sections = {"": [""]}
    for line in VALID.splitlines():
        if line.startswith("["):
            sections[line.strip("[]")] = [line]
        else:
            sections[list(sections)[-1]].append(line)
    for heading, lines in changes.items():
        body = sections.setdefault(heading, [f"[{heading}]"])
        for line in lines.splitlines():
            key = line.removeprefix("-").partition("=")[0].strip()
            if line == "-":
                body.clear()
                continue
            workspace = next((number for number, old in enumerate(body) if old.partition("=")[0].strip() == key), len(body))
            body[workspace : workspace + 1] = [] if line.startswith("-") else [line]
    return "\n".join(line for body in sections.values() for line in body).strip("\n") + "\n" + more


def _rows() -> Iterator[Mistake]:
    def row(name: str, text: str, *says: str, files: dict[str, str] | None = None) -> Mistake:
        return Mistake(name=name, text=text, says=says, files=tuple((files or {}).items()))

    def space(line: str) -> str:
        return study({"space": line})

    # The file
    yield row("empty file", "", "name is missing", "Add `name`")
    yield row("broken TOML", 'name = "study\n', "not valid TOML", "line 1")
    yield row("YAML", "name: study\nbudget:\n  trials: 5\n", "not valid TOML", "line 1")
    yield row("key twice", study({"budget": "trials = 5"}, more="[budget]\ntrials = 6\n"), "not valid TOML", "budget")
    yield row("one kilobyte of digits", study({"budget": f"trials = {'9' * 5000}"}), "not valid TOML", "digits")
    yield row("no name", study({"": "-name"}), "name is missing", "Add `name`")
    yield row("no trials", study({"budget": "-trials"}), "budget: needs `trials` or `epochs`", "would never end")
    yield row("no budget", study({"budget": "-"}), "budget is missing", "[budget]")
    yield row("no space", study({"space": "-", "space.cnn": "-", "space.sgd": "-", "space.adam": "-"}), "space is missing", "[space]")

    # Unknown keys
    yield row("unknown key", study({"": "sed = 3"}), "unknown key sed", "'seed'")
    yield row("unknown section", study({"prunner": 'kind = "median"', "pruner": "-"}), "unknown key prunner", "'pruner'")
    yield row("unknown key in data", study({"data": "validation_image = 5"}), "data.validation_image", "'validation_images'")
    yield row("unknown key in budget", study({"budget": "-trials\ntrial = 5"}), "budget.trial", "'trials'")
    yield row("unknown key in limits", study({"limits": "parameter = 5"}), "limits.parameter", "'parameters'")
    yield row("unknown key in sampler", study({"sampler": "startup = 5"}), "sampler.startup", "'startup_trials'")
    yield row("unknown key in pruner", study({"pruner": "warmup = 5"}), "pruner.warmup", "'warmup_epochs'")
    yield row("unknown key in a parameter", space("dropout = { float = [0.0, 0.5], stepp = 0.1 }"), "space.dropout", "stepp", "'step'")
    yield row("step of choices", space("batch_size = { choices = [64, 128], step = 64 }"), "space.batch_size", "step", "choices")
    yield row("setting outside the space", study({"": "epochs = 5"}), "unknown key epochs", "[space]")
    yield row(
        "condition in a parameter", space('dropout = { float = [0.0, 0.5], when = { model = "cnn" } }'), "space.dropout", "when", "[space."
    )

    # Ranges
    yield row("low above high", space("dropout = { float = [0.5, 0.1] }"), "space.dropout", "low <= high", "[0.5, 0.1]", "[0.1, 0.5]")
    yield row("NaN bound", space("dropout = { float = [0.0, nan] }"), "space.dropout", "finite", "nan")
    yield row("infinite bound", study({"space.sgd": "lr = { float = [1e-3, inf] }"}), "space.sgd.lr", "finite", "inf")
    yield row("huge bound", space(f"epochs = {{ int = [1, 0x{'f' * 5000}] }}"), "space.epochs", "finite", "digits")
    yield row("log from 0", space("dropout = { float = [0.0, 0.5], log = true }"), "space.dropout", "low > 0", "[0.0, 0.5]", "log")
    yield row("log below 0", study({"space.sgd": "lr = { float = [-1.0, 0.5], log = true }"}), "space.sgd.lr", "low > 0", "-1.0")
    yield row(
        "log as text", study({"space.sgd": 'lr = { float = [1e-3, 0.5], log = "yes" }'}), "space.sgd.lr", "log", "true or false", "'yes'"
    )
    yield row(
        "step that does not divide", space("dropout = { float = [0.0, 0.5], step = 0.2 }"), "space.dropout", "0.2", "high = 0.4 or 0.6"
    )
    yield row(
        "step above the width", study({"space.cnn": "filters1 = { int = [16, 20], step = 8 }"}), "space.cnn.filters1", "8", "high = 24"
    )
    yield row(
        "step of 0", study({"space.cnn": "filters1 = { int = [16, 64], step = 0 }"}), "space.cnn.filters1", "step must be above 0", "0"
    )
    yield row("negative step", space("dropout = { float = [0.0, 0.5], step = -0.1 }"), "space.dropout", "step must be above 0", "-0.1")
    yield row("fraction as an int's step", space("epochs = { int = [3, 5], step = 0.5 }"), "space.epochs", "step", "whole number", "0.5")
    yield row("endless steps", study({"space.sgd": "lr = { float = [1e-300, 1e300], step = 1e-300 }"}), "space.sgd.lr", "step", "too small")
    yield row(
        "step and log",
        study({"space.sgd": "lr = { float = [0.1, 0.3], step = 0.1, log = true }"}),
        "space.sgd.lr",
        "step and log",
        "one of the two",
    )
    yield row("one bound", space("dropout = { float = [0.3] }"), "space.dropout", "[low, high]", "[0.3]")
    yield row("one bound below the others", study({"space.sgd": "lr = { float = [1e-3] }"}), "space.sgd.lr", "[low, high]", "[0.001]")
    yield row("three bounds", space("dropout = { float = [0.1, 0.2, 0.3] }"), "space.dropout", "[low, high]", "[0.1, 0.2, 0.3]")
    yield row("range as text", space('dropout = { float = "0-1" }'), "space.dropout", "[low, high]", "'0-1'")
    yield row("bounds as text", space('dropout = { float = ["0.0", "0.5"] }'), "space.dropout", "a number", "'0.0'", "quotes")
    yield row(
        "range of ranges", space("dropout = { float = { low = 0, high = 1 } }"), "space.dropout", "[low, high]", "{ low = 0, high = 1 }"
    )
    yield row("two kinds of range", space("epochs = { int = [3, 5], float = [3.0, 5.0] }"), "space.epochs", "one of float, int and choices")
    yield row("range by names", space("dropout = { low = 0.0, high = 0.5 }"), "space.dropout", "float = [low, high]")
    yield row("misspelled kind", space("dropout = { flaot = [0.0, 0.5] }"), "space.dropout", "flaot", "'float'")
    yield row("misspelled kind in a table", study({"space.sgd": "lr = { flaot = [1e-3, 0.5] }"}), "space.sgd.lr", "flaot", "'float'")
    yield row("list for choices", space("batch_size = [64, 128]"), "space.batch_size", "{ choices = [64, 128] }")
    yield row("list of texts for choices", space('model = ["cnn", "lenet5"]'), "space.model", "{ choices = ['cnn', 'lenet5'] }")
    yield row("a date", space("dropout = 1979-05-27"), "space.dropout", "1979-05-27")

    # Choices
    yield row("no choices", space("batch_size = { choices = [] }"), "space.batch_size", "at least one value")
    yield row(
        "choices as text",
        space('optimizer = { choices = "adam" }'),
        "space.optimizer",
        "choices must be a list",
        "'adam'",
        "choices = ['adam']",
    )
    yield row("repeated choice", space("batch_size = { choices = [64, 128, 64] }"), "space.batch_size", "64 is there twice")
    yield row("repeated number", study({"space.sgd": "lr = { choices = [1, 1.0] }"}), "space.sgd.lr", "there twice")
    yield row("nested choices", space("batch_size = { choices = [[64], 128] }"), "space.batch_size", "[64]", "strings, numbers")
    yield row("mixed choices", space('batch_size = { choices = [64, "128"] }'), "space.batch_size", "of one type", "a number and a string")
    yield row("true beside 1", study({"space.cnn": "batch_norm = { choices = [true, 1] }"}), "space.cnn.batch_norm", "of one type")
    yield row("NaN choice", study({"space.sgd": "lr = { choices = [0.1, nan] }"}), "space.sgd.lr", "finite", "nan")

    # Conditions
    def when(condition: str, line: str = "label_smoothing = 0.1") -> str:
        return study({"space.extra": f"when = {condition}\n{line}"})

    yield row("condition on nobody", when('{ optmizer = "sgd" }'), "space.extra.when", "optmizer", "'optimizer'")
    yield row(
        "condition on a value that is never there",
        when('{ optimizer = "rmsprop" }'),
        "space.extra.when",
        "optimizer",
        "'rmsprop'",
        "sgd, adam",
    )
    yield row("condition of another type", when("{ batch_size = true }"), "space.extra.when", "batch_size", "true", "64, 128")
    yield row("condition on a range", when("{ epochs = 3 }"), "space.extra.when", "epochs", "range", "choices")
    yield row("condition on no value", when("{ optimizer = [] }"), "space.extra.when", "optimizer", "value", "[]")
    yield row("condition on an empty table", when("{ optimizer = {} }"), "space.extra.when", "optimizer", "{}")
    yield row("condition as text", when('"optimizer = sgd"'), "space.extra.when", "'optimizer = sgd'", "when = {")
    yield row(
        "condition without a parameter",
        study({"space.extra": 'when = { optimizer = "sgd" }'}),
        "space.extra",
        "no parameter",
        "remove the table",
    )
    yield row(
        "conditions in a circle",
        study(
            {
                "space.one": 'when = { "two.flip" = true }\nnesterov = { choices = [true, false] }',
                "space.two": 'when = { "one.nesterov" = true }\nflip = { choices = [true, false] }',
            }
        ),
        "circle", "one.nesterov", "two.flip", "Remove one",
    )  # fmt: skip
    yield row(
        "condition on itself",
        when('{ "extra.flip" = true }', "flip = { choices = [true, false] }"),
        "space.extra.when",
        "circle",
        "extra.flip",
    )
    yield row(
        "contradiction",
        study({"space.sgd": "nesterov = { choices = [true, false] }"}) + '[space.extra]\nwhen = { optimizer = "adam", "sgd.nesterov" = true }\nlabel_smoothing = 0.1\n',
        "space.extra.when", "never hold", "optimizer",
    )  # fmt: skip
    yield row(
        "table of a component never chosen",
        study({"space.rmsprop": "alpha = 0.9"}),
        "space.rmsprop",
        "optimizer is never 'rmsprop'",
        "Add it to",
    )
    yield row("when in a component's table", study({"space.sgd": 'when = { model = "cnn" }'}), "space.sgd", "takes no `when`", "label")
    yield row(
        "choice inside a table",
        study({"space.sgd": 'schedule = { choices = ["cosine", "step"] }'}),
        "space.sgd.schedule",
        "cannot depend",
        "[space]",
    )
    yield row("tables too deep", study({"space.sgd.more": "lr = 0.1"}), "space.sgd.more", "value or a parameter")
    yield row("unknown table", study({"space.sdg": "lr = 0.1"}), "space.sdg", "'sgd'")
    yield row("table of a data set", study({"space.mnist": "lr = 0.1"}), "space.mnist", "data set", "[data]")

    # Components
    yield row("unknown model", space('model = { choices = ["cnn", "lenet"] }'), "space.model", "unknown model 'lenet'", "'lenet5'")
    yield row("unknown optimizer", space('optimizer = "adamx"'), "space.optimizer", "unknown optimizer 'adamx'", "'adam'")
    yield row("unknown schedule", space('schedule = "cosin"'), "space.schedule", "unknown schedule 'cosin'", "'cosine'")
    yield row("optimizer for a model", space('model = "sgd"'), "space.model", "unknown model 'sgd'", "cnn, lenet5")
    yield row("model from a range", space("model = { int = [1, 2] }"), "space.model", "by name", "cnn, lenet5")
    yield row("unknown data set", study({"data": 'dataset = "fashion_mnist"'}), "data.dataset", "'fashion_mnist'", "'fashion-mnist'")
    yield row("unknown sampler", study({"sampler": 'kind = "tpee"'}), "sampler.kind", "'tpee'", "'tpe'")
    yield row("unknown pruner", study({"pruner": 'kind = "medain"'}), "pruner.kind", "'medain'", "'median'")
    yield row("sampler of nobody", study({"sampler": 'kind = "cmaes"'}), "sampler.kind", "'cmaes'", "'tpe', 'random', 'gp', 'qmc'")
    yield row(
        "key of another pruner",
        study({"pruner": 'kind = "halving"\nwarmup_epochs = 2'}),
        "pruner",
        '"halving"',
        "`warmup_epochs`",
        "reduction_factor",
    )
    yield row(
        "key of another sampler", study({"sampler": 'kind = "random"\nstartup_trials = 2'}), "sampler", '"random"', "`startup_trials`"
    )
    yield row("percentile of 100", study({"pruner": 'kind = "percentile"\npercentile = 100.0'}), "pruner.percentile", "below 100", "100.0")
    yield row("gp on a conditional space", study({"sampler": 'kind = "gp"'}), "sampler.kind", "gp", "adam.lr", 'kind = "tpe"')
    yield row("qmc on a conditional space", study({"sampler": 'kind = "qmc"'}), "sampler.kind", "qmc", 'kind = "tpe"')
    yield row(
        "gp on a space that is conditional through another parameter",
        'name = "x"\nbudget.trials = 3\nsampler.kind = "gp"\n[space]\nmodel = { choices = ["cnn", "lenet5"] }\n'
        '[space.cnn]\nbatch_norm = true\n[space.extra]\nwhen = { "cnn.batch_norm" = true }\nlabel_smoothing = { float = [0.0, 0.1] }\n',
        "sampler.kind", "gp", "extra.label_smoothing", 'kind = "tpe"',
    )  # fmt: skip

    # Parameters and what takes them
    yield row("epoch", study({"space": "-epochs\nepoch = 5"}), "space.epoch", "'epochs'")
    yield row(
        "optimiser",
        study({"space": '-optimizer\noptimiser = "sgd"', "space.sgd": "-", "space.adam": "-"}),
        "space.optimiser",
        "'optimizer'",
    )
    yield row("learning_rate", study({"space.sgd": "learning_rate = 0.1"}), "space.sgd.learning_rate", "'lr'")
    yield row("learning_rate of all", space("learning_rate = 0.1"), "space.learning_rate", "'lr'")
    yield row("batchsize", space("batchsize = 64"), "space.batchsize", "'batch_size'")
    yield row("mommentum", study({"space.sgd": "mommentum = 0.9"}), "space.sgd.mommentum", "'sgd'", "'momentum'")
    yield row(
        "parameter of another optimizer", study({"space.adam": "momentum = 0.9"}), "space.adam.momentum", "'adam'", "takes no `momentum`"
    )
    yield row("parameter of one of two models", space("filters2 = { int = [16, 64] }"), "space.filters2", "'lenet5'", "[space.cnn]")
    yield row("parameter of a model never chosen", space("pooling = 'max'\nmodel = 'cnn'"), "space.pooling", "lenet5", "never chooses")
    yield row(
        "parameter of a component without any", study({"space.constant": "gamma = 0.9"}), "space.constant.gamma", "'constant'", "no options"
    )
    yield row("dropout of 1.5", space("dropout = 1.5"), "space.dropout", ">= 0 and < 1", "1.5")
    yield row("dropout of 1", space("dropout = { float = [0.0, 1.0] }"), "space.dropout", "< 1", "1.0")
    yield row("no epochs", space("epochs = 0"), "space.epochs", ">= 1", "0")
    yield row("negative batch", space("batch_size = { choices = [-1, 64] }"), "space.batch_size", ">= 1", "-1")
    yield row("epochs from a float range", space("epochs = { float = [3.0, 5.0] }"), "space.epochs", "whole number", "int = [3, 5]")
    yield row(
        "filters from a float range",
        study({"space.cnn": "filters1 = { float = [16, 64] }"}),
        "space.cnn.filters1",
        "whole number",
        "int = [16, 64]",
    )
    yield row("fraction of an epoch", space("epochs = 2.5"), "space.epochs", "whole number", "2.5")
    yield row("fractional choice", space("batch_size = { choices = [64, 128.5] }"), "space.batch_size", "whole number", "128.5")
    yield row("number as text", space('epochs = "5"'), "space.epochs", "whole number", "'5'", "quotes")
    yield row("number as text in choices", space('batch_size = { choices = ["64"] }'), "space.batch_size", "whole number", "'64'", "quotes")
    yield row("text as a number", study({"space.cnn": "activation = 1"}), "space.cnn.activation", "'relu'", "1")
    yield row("switch as a number", study({"space.cnn": "batch_norm = 1"}), "space.cnn.batch_norm", "true or false", "1")
    yield row(
        "switch as a range",
        study({"space.cnn": "batch_norm = { int = [0, 1] }"}),
        "space.cnn.batch_norm",
        "true or false",
        "choices = [true, false]",
    )
    yield row("text from a range", study({"space.cnn": "activation = { int = [0, 1] }"}), "space.cnn.activation", "choices")
    yield row("unknown activation", study({"space.cnn": 'activation = "rellu"'}), "space.cnn.activation", "'rellu'", "'relu'")
    yield row("lr of 0", study({"space.sgd": "lr = 0"}), "space.sgd.lr", "> 0", "0")
    yield row("two owners of one value", study({"space": "lr = 0.1"}), "space.adam.lr", "lr sets `lr`", "Remove one")
    yield row(
        "two tables of one value",
        study({"space.slow": 'when = { optimizer = "sgd" }\nlr = 0.1', "space.sgd": "-lr", "space.fast": 'when = { model = "cnn", optimizer = "sgd" }\nlr = 0.2'}),
        "space.slow.lr", "fast.lr", "exclude each other",
    )  # fmt: skip
    yield row(
        "model and optimizer take one name",
        study({"": 'use = ["net.py"]', "space": 'model = "net"\nmomentum = 0.5\noptimizer = "sgd"\n-dropout', "space.cnn": "-", "space.adam": "-", "space.sgd": "-", "baseline": "-"}),
        "space.momentum", "both the model and the optimizer", "[space.NAME]",
        files={"net.py": 'import hpsearch\n@hpsearch.model("net", momentum=hpsearch.option(0.1))\ndef net(**_): ...\n'},
    )  # fmt: skip

    # Baselines
    yield row("baseline outside its range", study({"baseline": "epochs = 9"}), "baseline 1", "epochs", "3 to 5", "9")
    yield row(
        "baseline's default outside its range",
        study({"baseline": "-epochs"}),
        "baseline 1",
        "epochs's default",
        "3 to 5",
        "10",
        "Give epochs",
    )
    yield row("unknown key in a baseline", study({"baseline": "epoch = 5"}), "baseline 1", "'epoch'", "'epochs'")
    yield row(
        "baseline's key that does not exist there", study({"baseline": "filters1 = 16"}), "baseline 1", "filters1", "only when model is cnn"
    )
    yield row("baseline with choices", study({"baseline": "epochs = [3, 5]"}), "baseline 1", "epochs", "one value", "[3, 5]")
    yield row(
        "baseline with a table for a value", study({"baseline": "epochs = { int = [3, 5] }"}), "baseline 1", "epochs", "one value", "[3, 5]"
    )
    yield row("baseline as one table", study({"baseline": "-"}, more='[baseline]\nmodel = "cnn"\n'), "baseline", "[[baseline]]")
    yield row("baseline of an unknown model", study({"baseline": 'model = "resnet"'}), "baseline 1", "model", "cnn, lenet5", "'resnet'")
    yield row(
        "baseline of another fixed value", study({"baseline": 'schedule = "cosine"'}), "baseline 1", "schedule", "constant", "'cosine'"
    )
    yield row("baseline with a huge number", study({"baseline": f"lr = 0x{'f' * 5000}"}), "baseline 1", "sgd.lr", "0.001 to 0.3")
    yield row(
        "one value twice in a baseline", study({"baseline": "lr = 0.1\nsgd.lr = 0.2"}), "baseline 1", "sgd.lr", "lr", "one of the two"
    )
    yield row(
        "more baselines than trials",
        study({"budget": "trials = 1"}, more='[[baseline]]\nmodel = "cnn"\nepochs = 3\n'),
        "budget.trials",
        "2 baselines",
        "1 trial",
    )

    # Data, budget, limits
    yield row("no validation images", study({"data": "validation_images = 0"}), "data.validation_images", "at least 1", "0")
    yield row("all images for validation", study({"data": "validation_images = 60_000"}), "data.validation_images", "60,000")
    yield row(
        "more images than there are", study({"data": "train_images = 55_000"}), "data.train_images", "55,000", "10,000", "60,000", "50,000"
    )
    yield row("a share of the images", study({"data": "validation_images = 0.2"}), "data.validation_images", "whole number", "0.2")
    yield row("no trials at all", study({"budget": "trials = 0"}), "budget.trials", "at least 1", "0")
    yield row("negative trials", study({"budget": "trials = -5"}), "budget.trials", "at least 1", "-5")
    yield row("boolean trials", study({"budget": "trials = true"}), "budget.trials", "whole number", "true")
    yield row("trials as text", study({"budget": 'trials = "60"'}), "budget.trials", "whole number", "'60'")
    yield row("too many trials", study({"budget": "trials = 10_000_000"}), "budget.trials", "at most 1,000,000", "10000000")
    yield row("time as a number", study({"budget": "time = 3600"}), "budget.time", '"2h"', "3600")
    yield row("time without a unit", study({"budget": 'time = "90"'}), "budget.time", '"90s"', "'90'")
    yield row("time in words", study({"budget": 'time = "two hours"'}), "budget.time", '"2h"', "'two hours'")
    yield row("no time", study({"budget": 'trial_time = "0s"'}), "budget.trial_time", "longer than 0 s", "'0s'")
    yield row("negative time", study({"budget": 'time = "-2h"'}), "budget.time", '"2h"', "'-2h'")
    yield row("balance of something else", study({"budget": 'balance = "optimizer"'}), "budget.balance", "'model'", "'optimizer'")
    yield row(
        "balance with one model",
        study({"budget": 'balance = "model"', "space": 'model = "cnn"', "baseline": "-"}),
        "budget.balance",
        "one model",
        "balance",
    )
    yield row(
        "balance with one choice",
        study({"budget": 'balance = "model"', "space": 'model = { choices = ["cnn"] }', "baseline": "-"}), "budget.balance", "one model", "balance",
    )  # fmt: skip
    yield row("no parameters", study({"limits": "parameters = 0"}), "limits.parameters", "at least 1", "0")
    yield row("negative seed", study({"": "seed = -1"}), "seed", "at least 0", "-1")
    yield row("seed too large", study({"": f"seed = {2**32}"}), "seed", "at most 4,294,967,295")
    yield row("section as a value", study({"data": "-", "": 'data = "mnist"'}), "data", "must be a table", "'mnist'", "[data]")
    yield row("list of budgets", study({"budget": "-"}, more="[[budget]]\ntrials = 5\n"), "budget", "must be a table", "[budget]")
    yield row("description of numbers", study({"": "description = 5"}), "description", "string in quotes", "5")

    # Names
    for name, value in {
        "empty": '""',
        "too long": f'"{"x" * 81}"',
        "with a slash": '"a/b"',
        "that leaves the folder": '"../x"',
        "of dots": '".."',
        "with NUL": r'"a\u0000b"',
        "with a line break": r'"a\nb"',
        "with a space": '"a b"',
        "of markup": '"<script>"',
        "of 50 kB": f'"{"x" * 50_000}"',
    }.items():
        yield row(f"name {name}", study({"": f"name = {value}"}), " name: ", "letters, digits, '-' or '_'", "folder")

    # Component files
    def use(source: str | None, name: str = "net.py") -> dict[str, str]:
        return {} if source is None else {name: source}

    def using(name: str = "net.py") -> str:
        return study({"": f'use = ["{name}"]'})

    yield row("component file that is missing", using(), "use", "net.py", "No such file", "relative to the study file")
    yield row("component file that is a folder", using("."), "use", "directory", "relative to the study file")
    yield row("component file with NUL in its name", using(r"a\u0000.py"), "use", r"a\x00.py")
    yield row("use as text", study({"": 'use = "net.py"'}), "use", "must be a list", "'net.py'", "use = ['net.py']")
    yield row("component file with a typo", using(), "net.py", "SyntaxError", "line 1", files=use("def net(:\n"))
    yield row(
        "component file that does not import",
        using(),
        "net.py",
        "No module named 'nothing_of_this_name'",
        "line 2",
        files=use("\nimport nothing_of_this_name\n"),
    )
    yield row("component file that raises", using(), "net.py", "ZeroDivisionError", "line 1", files=use("1 / 0\n"))
    yield row("component file that exits", using(), "net.py", "SystemExit", "line 2", files=use("import sys\nsys.exit(0)\n"))
    yield row("component file that registers nothing", using(), "net.py", "registers nothing", "@hpsearch.model", files=use("x = 1\n"))
    yield row("component file that is binary", using(), "net.py", "does not import", files=use("\x00\x01"))
    yield row("component with a built-in name", using(), "net.py", "'cnn'", "already", "another name", files=use(_registering("cnn")))
    yield row("component twice in a file", using(), "net.py", "'net'", "already", "another name", files=use(_registering("net") * 2))
    yield row(
        "component file twice", study({"": 'use = ["net.py", "net.py"]'}), "net.py", "'net'", "already", files=use(_registering("net"))
    )
    yield row("component with the name of a setting", using(), "net.py", "'epochs'", "name of a setting", files=use(_registering("epochs")))
    yield row("component with a strange name", using(), "net.py", "letters, digits", "'a b'", files=use(_registering("a b")))
    yield row(
        "option without hpsearch.option", using(), "net.py", "width", "hpsearch.option(8)",
        files=use('import hpsearch\n@hpsearch.model("net", width=8)\ndef net(**_): ...\n'),
    )  # fmt: skip
    yield row(
        "option whose default is not allowed", using(), "net.py", "default", "<= 4", "8", "line 2",
        files=use('import hpsearch\n@hpsearch.model("net", width=hpsearch.option(8, high=4))\ndef net(**_): ...\n'),
    )  # fmt: skip
    yield row(
        "option whose default is a list", using(), "net.py", "default", "[8]", "line 2",
        files=use('import hpsearch\n@hpsearch.model("net", width=hpsearch.option([8]))\ndef net(**_): ...\n'),
    )  # fmt: skip
    yield row(
        "option with a name that means something else", using(), "net.py", "'net'", "`when`", "another name",
        files=use('import hpsearch\n@hpsearch.model("net", when=hpsearch.option(8))\ndef net(**_): ...\n'),
    )  # fmt: skip


def _registering(name: str) -> str:
    return f'import hpsearch\n@hpsearch.model("{name}")\ndef net(**_): ...\n'


MISTAKES = tuple(_rows())

LATER_SECTIONS = (
    Mistake(name="one seed", text=study({"finalists": "seeds = 1"}), says=("finalists.seeds", "at least 2")),
    Mistake(name="no finalist", text=study({"finalists": "top = 0"}), says=("finalists.top", "at least 1")),
    Mistake(name="warm start from nowhere", text=study({"warm_start": "from = []"}), says=("warm_start.from", "at least 1")),
    Mistake(
        name="warm start from a path",
        text=study({"warm_start": 'from = ["../old"]'}),
        says=("warm_start.from", "'../old'", "names of studies"),
    ),
)
"""Sections that this version does not support yet."""
