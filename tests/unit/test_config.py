"""Configuration: what is accepted, its types, and that everything else is refused with key and range."""

import re
import textwrap
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from pool.config import MaxLimits, Settings, Size, Template, TemplateLimits, load, loader, loads
from pool.config.fields import Allowed
from pool.daemon.worker_spec import policy
from pool.errors import ConfigError

SHIPPED = Path(__file__).parents[2] / "config" / "pool.yaml"
MIB = 1 << 20


def settings(text: str, **environ: str) -> Settings:
    return loads(textwrap.dedent(text), source="pool.yaml", environ=environ)


def problems(text: str, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        settings(text, **environ)
    return caught.value.problems


def attempt(text: str, **environ: str) -> Settings | tuple[str, ...]:
    try:
        return loads(text, source="pool.yaml", environ=environ)
    except ConfigError as error:
        return error.problems


def template(text: str, **environ: str) -> Template:
    return settings("pools:\n  default:\n" + textwrap.indent(textwrap.dedent(text), "    "), **environ).pools["default"]


# ---- the shipped file ----


def test_the_shipped_file_is_the_defaults():
    assert load(SHIPPED, {}) == Settings()


def leaves(model: type[BaseModel]) -> list[tuple[str, object, list[object]]]:
    """Name, annotation and metadata of every field that is not a section itself."""
    found = []
    for name, field in model.model_fields.items():
        inner = [each for each in (field.annotation, *get_args(field.annotation)) if isinstance(each, type)]
        sections = [each for each in inner if issubclass(each, BaseModel)]
        if sections:
            found += leaves(sections[0])
        else:
            found.append((name, field.annotation, [*field.metadata, *metadata(field.annotation)]))
    return found


def metadata(annotation: object) -> list[object]:
    own = list(getattr(annotation, "__metadata__", ()))
    return own + [each for inner in get_args(annotation) if not isinstance(inner, str) for each in metadata(inner)]


def test_every_key_appears_in_the_shipped_file():
    pending: list[BaseModel] = [load(SHIPPED, {})]
    while pending:
        section = pending.pop()
        assert section.model_fields_set == set(type(section).model_fields), type(section).__name__
        values = [getattr(section, name) for name in type(section).model_fields]
        values += [each for value in values if isinstance(value, dict) for each in value.values()]
        pending += [value for value in values if isinstance(value, BaseModel)]


@pytest.mark.parametrize(
    "leaf", [each for each in leaves(Settings) if each not in leaves(MaxLimits)], ids=lambda x: x[0]
)
def test_the_shipped_file_says_what_each_key_may_be(leaf):
    name, annotation, about = leaf
    text = SHIPPED.read_text()
    around = [match[0] for match in re.finditer(rf"(?:^ *#.*\n)*^ *{name}:.*$", text, re.MULTILINE)]
    words = [each.text for each in about if isinstance(each, Allowed)] or [str(each) for each in get_args(annotation)]
    assert around
    documented = " ".join(" ".join(around).replace("#", " ").split())
    assert [each for each in words if each not in documented] == []


def test_a_file_that_changes_nothing_is_the_defaults():
    assert settings("{}") == Settings()


PAGES = sorted((SHIPPED.parents[1]).glob("docs/*.md"))
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_configuration_in_the_documentation_is_accepted_as_it_is_written(block, tmp_path):
    for name in ("prices.npy", "prices.csv", "trades.parquet"):
        (tmp_path / name).touch()
    assert settings(block.replace("/srv/pool", str(tmp_path))) != Settings()


# ---- types ----


def test_sizes_become_bytes():
    limits = template("limits: {memory: 1g, tmp: 128 KiB, output: 2048}").limits
    assert (limits.memory, limits.tmp, limits.output) == (1024 * MIB, 128 * 1024, 2048)


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        Settings().daemon.log_level = "debug"


def test_the_maximum_is_the_default_where_nothing_is_said():
    chosen = template("{limits: {wall_s: 10}, max_limits: {memory: 2g}}")
    assert chosen.maximum == TemplateLimits(wall_s=10, memory=2048 * MIB)


def test_auto_starts_at_least_one_worker_at_a_time():
    assert Settings().daemon.starts >= 1
    assert settings("daemon: {start_concurrency: 7}").daemon.starts == 7


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("screen: off", "screen.mode", "off"),
        ("screen: {mode: off, allow_names: [no, on, yes, null]}", "screen.allow_names", ("no", "on", "yes", "null")),
        ("preload: {modules: [on, y]}", "preload.modules", ("on", "y")),
        ("env_allow: [NULL, OFF]", "env_allow", ("NULL", "OFF")),
        ("image: 1e3", "image", "1e3"),
        ("image: 2026-11-28", "image", "2026-11-28"),
        ("runtime: 0x10", "runtime", "0x10"),
        ("apparmor: 1_0", "apparmor", "1_0"),
        ("apparmor: null", "apparmor", None),
        ("apparmor: ~", "apparmor", None),
        ("apparmor:", "apparmor", None),
        ("backlog: {max_jobs: 10_000}", "backlog.max_jobs", 10_000),
        ("backlog: {max_jobs: 1e3}", "backlog.max_jobs", 1000),
        ("limits: {memory: 512_000_000}", "limits.memory", 512_000_000),
        ("limits: {wall_s: 1e1, cpu_s: .5}", "limits.wall_s", 10.0),
        ("limits: {wall_s: 1e1, cpu_s: .5}", "limits.cpu_s", 0.5),
        ("boot_timeout_s: 1_000", "boot_timeout_s", 1000.0),
        ("poison: {kills: null}", "poison.kills", None),
        ("size: {spare: auto}", "size.spare", "auto"),
        ("size: {spare: measured}", "size.spare", "measured"),
        ("size: {memory: 2g}", "most_workers", 4),
        ("isolation: ${MODE:plain}", "isolation", "plain"),
    ],
)
def test_a_value_is_read_by_the_type_of_its_key(text, path, expected):
    """YAML 1.1 makes false of `off`, a number of `1e3`, a date of `2026-11-28` and None of `null`, whatever the key."""
    value: object = template(text)
    for step in path.split("."):
        value = getattr(value, step)
    assert value == expected
    assert type(value) is type(expected)


def test_a_pool_and_a_data_set_may_have_a_name_that_yaml_takes_for_something_else(tmp_path):
    prices = tmp_path / "on.npy"
    prices.touch()
    (made,) = settings(f"pools: {{off: {{preload: {{datasets: {{no: {prices}}}}}}}}}").pools.items()
    assert made[0] == "off"
    assert made[1].preload.datasets == {"no": prices}


@pytest.mark.parametrize("word", ["true", "True", "yes", "on", "ON"])
def test_a_flag_may_be_any_of_yamls_words(word):
    assert settings(f"sandbox: {{enabled: {word}}}").sandbox.enabled is True


@pytest.mark.parametrize("mode", ["0600", '"0600"'])
def test_the_submit_mode_is_octal_with_or_without_quotes(mode):
    assert settings(f"daemon: {{submit_mode: {mode}}}").daemon.submit_bits == 0o600


def test_templates_can_be_made_in_python(tmp_path):
    prices = tmp_path / "prices.npy"
    prices.touch()
    made = Template(size=Size(min=1, max=1), preload={"modules": (), "datasets": {"prices": prices}})
    assert made.preload.datasets == {"prices": prices}


def test_each_pool_has_its_own_template():
    pools = settings("pools: {fast: {size: {min: 4}}, once: {recycle: {max_jobs: 1}}}").pools
    assert pools["fast"].size.min == 4
    assert pools["once"].recycle.max_jobs == 1


# ---- variables ----


def test_a_default_is_taken_when_the_variable_is_not_set():
    assert settings("sandbox: {enabled: '${SANDBOX_ENABLED:true}'}").sandbox.enabled is True


def test_a_variable_becomes_the_type_of_its_setting():
    made = settings(
        """
        sandbox:
          enabled: ${ON:true}
        daemon:
          run_dir: ${DIR}
          drain_timeout_s: ${SECONDS}
          submit_group: ${GROUP:}
          submit_mode: ${MODE:0660}
        pools:
          default:
            size: {min: "${MIN:2}"}
            limits: {memory: "${MEMORY:512m}", tmp: "${TMP:1048576}"}
            image: ${IMAGE:pool-worker:latest}
        """,
        ON="false", DIR="/tmp/x", SECONDS="1.5", MIN="5", MEMORY="1g", MODE="0640",
    )  # fmt: skip
    assert made.sandbox.enabled is False
    assert (made.daemon.run_dir, made.daemon.drain_timeout_s) == (Path("/tmp/x"), 1.5)
    assert (made.daemon.submit_group, made.daemon.submit_mode) == (None, "0640")
    default = made.pools["default"]
    assert (default.size.min, default.limits.memory, default.limits.tmp) == (5, 1 << 30, MIB)
    assert default.image == "pool-worker:latest"


def test_a_number_in_a_variable_is_text_where_text_is_wanted():
    assert settings("daemon: {submit_group: '${GROUP}'}", GROUP="1000").daemon.submit_group == "1000"


def test_references_inside_text_stay_text():
    made = settings("daemon: {run_dir: '/run/${A}-${B:b}', state_dir: '/var/$${A}'}", A="1")
    assert made.daemon.run_dir == Path("/run/1-b")
    assert made.daemon.state_dir == Path("/var/${A}")


def test_a_variable_without_a_value_is_named_with_its_key():
    (problem,) = problems("daemon:\n  run_dir: ${POOL_RUN_DIR}")
    assert problem.startswith("pool.yaml:2: daemon.run_dir: the environment variable POOL_RUN_DIR is not set")


@pytest.mark.parametrize("reference", ["${", "${}", "${1A}", "${A", "${A:${B}}", "${A B}"])
def test_a_broken_reference_is_refused(reference):
    (problem,) = problems(f"daemon:\n  run_dir: '/{reference}'")
    assert "daemon.run_dir" in problem
    assert "write ${VARIABLE}" in problem


@given(value=st.text(st.characters(codec="utf-8"), max_size=60))
def test_a_variable_never_changes_the_structure(value):
    """Whatever it holds, it is the one value of its key: the other keys are as without it."""
    made = attempt("daemon:\n  submit_group: ${X}\n  log_level: debug", X=value)
    if isinstance(made, Settings):
        assert made.daemon.submit_group in {value, None}
        assert made.daemon.log_level == "debug"
    else:
        assert all("daemon.submit_group" in problem for problem in made)


def test_a_variable_is_not_filled_in_twice():
    assert "daemon.run_dir: got text '${B}'" in problems("daemon: {run_dir: '${A}'}", A="${B}", B="/x")[0]


# ---- what is refused ----


def test_all_problems_come_at_once_with_line_key_and_range():
    found = problems(
        """
        daemon:
          log_levle: debug
        pools:
          default:
            size: {min: 0, max: "8"}
            limits:
              memory: 1m
              wall_s: 10
            max_limits: {wall_s: 5}
            limits: {}
        """
    )
    assert found == (
        (
            "pool.yaml:3: daemon.log_levle: unknown key; did you mean log_level? allowed: run_dir, state_dir, image_dir, "
            "durability, journal_bytes, "
            "log_level, log_format, start_concurrency, drain_timeout_s, result_ttl_s, result_bytes, submit_mode, submit_group"
        ),
        "pool.yaml:6: pools.default.size.min: got 0; allowed: a whole number from 1 to 256",
        "pool.yaml:6: pools.default.size.max: got text '8'; allowed: a whole number from 1 to 256",
        "pool.yaml:8: pools.default.limits.memory: got 1m; allowed: a size from 32m to 1t",
        "pool.yaml:11: pools.default.limits: duplicate key, first given in line 7; keep one",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sandbox: {enabled: 1}", "sandbox.enabled: got 1; allowed: true or false"),
        ("sandbox: {enabled: 'true'}", "sandbox.enabled: got text 'true'; allowed: true or false"),
        ("sandbox: {fallback: none}", "sandbox.fallback: got none; allowed: local or refuse"),
        ("sandbox:", "sandbox: got nothing; allowed: a mapping with the keys enabled, fallback"),
        ("daemon: []", "daemon: got a list; allowed: a mapping with the keys run_dir"),
        ("daemon: {run_dir: run/pool}", "daemon.run_dir: got text 'run/pool'; allowed: an absolute path"),
        ("daemon: {result_ttl_s: .nan}", "daemon.result_ttl_s: got .nan; allowed: seconds from 1 to 604800"),
        ("daemon: {result_ttl_s: true}", "daemon.result_ttl_s: got true; allowed: seconds"),
        ("daemon: {start_concurrency: many}", "got many; allowed: auto, or a whole number from 1 to 64"),
        ("daemon: {submit_mode: '0999'}", "daemon.submit_mode: got text '0999'; allowed: four octal digits"),
        ("daemon: {result_ttl_s: 1:30}", "daemon.result_ttl_s: got 1:30; allowed: seconds"),
        ("daemon: {result_bytes: 12q}", "daemon.result_bytes: '12q' is not a size"),
        ("pools: {}", "pools: 0 entries; allowed: 1 or more"),
        ("pools: {Fast: {}}", "pools.Fast: got text 'Fast'; allowed: 1 to 24 of a-z"),
        ("pools: {a: {size: {min: 3, max: 2}}}", "pools.a.size: min is 3 and max is 2; allowed: min up to max"),
        ("pools: {a: {size: {min: true}}}", "pools.a.size.min: got true; allowed: a whole number"),
        ("pools: {a: {size: {min: 2.0}}}", "pools.a.size.min: got 2.0; allowed: a whole number"),
        ("pools: {a: {size: {spare: 9}}}", "pools.a.size: spare is 9 and max is 8"),
        ("pools: {a: {size: {spare: some}}}", "got some; allowed: auto, measured, or a whole number from 0 to 256"),
        ("pools: {a: {size: {miss_rate: 0}}}", "pools.a.size.miss_rate: got 0; allowed: a number from 0.0001 to 0.5"),
        ("pools: {a: {size: {memory: 1g, min: 3}}}", "pools.a: size.memory is 1.0 GiB; 3 workers (size.min)"),
        ("pools: {a: {cpus: 0}}", "pools.a.cpus: got 0; allowed: a number from 0.1 to 64"),
        ("pools: {a: {image: -x}}", "pools.a.image: got -x; allowed: the name of an image"),
        ("pools: {a: {env_allow: A}}", "pools.a.env_allow: got A; allowed: a list, such as [A]"),
        ("pools: {a: {env_allow: [A, a=b]}}", "pools.a.env_allow[1]: got a=b; allowed: 1 to 128 letters"),
        ("pools: {a: {preload: {modules: [os.path, import]}}}", "pools.a.preload.modules[1]: got text 'import'"),
        ("pools: {a: {preload: {datasets: {x: /no/such.npy}}}}", "datasets.x: '/no/such.npy' does not exist"),
        ("pools: {a: {preload: {datasets: {x: /etc/passwd}}}}", "datasets.x: '/etc/passwd' is not a data file"),
        ("pools: {a: {preload: {datasets: [x]}}}", "datasets: got a list; allowed: a mapping of names to values"),
        ("pools: {a: {max_limits: {memory: 64m}}}", "max_limits.memory: 64 MiB is below the default in limits; allowed: 512 MiB or more"),
        ("pools: {a: {limits: {wall_s: '${W:x}'}}}", "limits.wall_s: got x; allowed: seconds"),
        ("pools: {a: {cpus: !!float 2}, b: !x {}}", "pools.b: the tag '!x' is not allowed"),
        ("pools:\n  a: &x {}\n  b: *x", "pool.yaml:3: pools.b: the alias *x is not allowed"),
        ("", "the file is empty"),
        ("# only a comment", "the file is empty"),
        ("[1]", "the top level must be a mapping with the keys sandbox, daemon, alerts, metrics, pools"),
        ("pools: {a: {preload: [numpy, x.y]}}", "keys modules, datasets, such as {modules: [numpy, x.y]}"),
        ("pools: {a: {preload: {modules: numpy}}}", "preload.modules: got numpy; allowed: a list, such as [numpy]"),
        ("alerts: {command: /bin/page -x}", "alerts.command: got text '/bin/page -x'; allowed: a list, such as [/bin/page, -x]"),
        ("pools:\n\ta: {}", "found character that cannot start any token; indent with spaces and not with tabs"),
        ("pools: {a: {min: 2}}", "pools.a.min: unknown key; it belongs below pools.NAME.size; allowed: engine,"),
        ("wall_s: 2", "unknown key; it belongs below pools.NAME.limits or below pools.NAME.max_limits; allowed: sandbox,"),
        ("alerts: {pools: {}}", "alerts.pools: unknown key; it belongs at the top level; allowed: window_s"),
        ("a: [", "not YAML: "),
        ("pools: {a: {}}\n---\nb: 1", "pool.yaml:2: a second document begins here"),
        ("a: \x01", "not YAML"),
        ("? [a]\n: 1", "a key must be a single word"),
    ],
)  # fmt: skip
def test_is_refused_with_what_is_allowed(text, expected):
    (problem,) = problems(text)
    assert expected in problem
    assert problem.startswith("pool.yaml")
    assert "\n" not in problem


def test_nesting_deeper_than_any_setting_is_refused_in_our_own_words():
    deep = loader.MAX_DEPTH + 1
    assert problems("\na: " + "[" * deep + "]" * deep) == (
        f"pool.yaml:2: nested more than {loader.MAX_DEPTH} deep; config/pool.yaml shows the form",
    )


def test_nesting_without_end_is_one_problem_whoever_finds_it():
    # Releases of PyYAML differ in whether they give up themselves before our own limit is looked at.
    (problem,) = problems("[" * 500_000)
    assert problem.startswith("pool.yaml:1: ")
    assert len(problem) < 200


def test_a_number_of_thousands_of_digits_is_refused():
    (problem,) = problems("daemon: {result_ttl_s: " + "9" * 9000 + "}")
    assert "got 9999" in problem
    assert len(problem) < 200


def test_a_file_that_only_repeats_one_mistake_is_cut_short():
    assert len(problems("a: 1\n" * 5000)) == 100


def test_the_message_counts_the_problems():
    with pytest.raises(ConfigError, match=r"pool\.yaml has 2 problems; correct the configuration"):
        settings("{x: 1, y: 2}")


# ---- files ----


def test_a_file_is_read_with_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("POOL_TEST_LEVEL", "debug")
    path = tmp_path / "pool.yaml"
    path.write_text("daemon:\n  log_level: ${POOL_TEST_LEVEL}\n")
    assert load(path).daemon.log_level == "debug"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (b"#" * (1 << 20) + b"#", "too long; allowed: up to 1048576 bytes"),
        (b"# \xc3\xa9" * (1 << 20), "too long"),
        (b"", "the file is empty"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path, content, expected):
    path = tmp_path / "pool.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert expected in caught.value.problems[0]


def test_text_with_a_lone_surrogate_is_refused_with_its_line():
    assert "pool.yaml:2: not text: a lone surrogate" in problems("daemon:\n  log_level: '\udc80'\n")[0]


@pytest.mark.parametrize(("name", "expected"), [("none.yaml", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name, expected):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / name, {})
    assert expected in caught.value.problems[0]


def test_a_pool_has_no_more_workers_than_fit_into_its_memory_and_measures_its_spare_where_it_should():
    bounded = policy(template("size: {memory: 2g, max: 8, spare: measured, miss_rate: 0.05}"), starts=1)
    assert (bounded.max_workers, bounded.miss_rate) == (4, 0.05)
    fixed = policy(template("size: {max: 8, spare: 3, miss_rate: 0.05}"), starts=1)
    assert (fixed.max_workers, fixed.spare, fixed.miss_rate) == (8, 3, None)
