"""Secrets are known by name and in URLs, stand in no manifest, and come back from the environment."""

import json

import pytest
from support.sweeps import sweep

from hybrid_sweep import credentials
from hybrid_sweep.credentials import harmless, is_secret, masked, public, resolved, without_secrets
from hybrid_sweep.driver.sweep import begin
from hybrid_sweep.errors import UserError, named, one_line
from hybrid_sweep.user_code import whole_keywords

SECRETS = (
    "password sslpassword PGPASSWORD db_passwd token hf_token authToken api_key apiKey wandb-api-key secret "
    "client_secret aws_secret_access_key aws_access_key_id credentials Authorization passphrase pwd"
)
NO_SECRETS = (
    "tokenizer pad_token eos_token mask_token max_tokens num_tokens token_count tokens_per_batch author data "
    "forward_pass n_passes bypass compass secretary key batch password_file credentials_path"
)


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    monkeypatch.setattr(credentials, "_known", set())


@pytest.mark.parametrize("name", SECRETS.split())
def test_a_secret_is_known_by_its_name(name):
    assert is_secret(name)


@pytest.mark.parametrize("name", NO_SECRETS.split())
def test_another_name_is_none(name):
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "postgresql://me:hush@host/db?sslpassword=hush&x=1",
            "postgresql://me:***@host/db?sslpassword=***&x=1",
        ),
        ("https://hush@github.com/me/it.git", "https://***@github.com/me/it.git"),
        ("https://me:hush@github.com/it.git", "https://me:***@github.com/it.git"),
        ("ssh://git@github.com/it.git", "ssh://git@github.com/it.git"),
        ("--set=workload.token=hush", "--set=workload.token=***"),
        ("workload={name: x, token: hush, n: 3}", "workload={name: x, token: ***, n: 3}"),
        ('{"api_key": "hush"}', '{"api_key": ***}'),
        ("https://host/?api_key=hush&token=hush", "https://host/?api_key=***&token=***"),
        ("space.max_predict_steps=[50,75]", "space.max_predict_steps=[50,75]"),
        ("mod:Class", "mod:Class"),
    ],
)
def test_a_text_is_shown_without_its_secrets(text, shown):
    assert masked(text) == shown


KEYWORDS = {
    "token": "hush-hush",
    "data": "mnist",
    "pad_token": "<pad>",
    "at": {"url": "postgresql://me:hush-hush@host/db", "password": 123456, "port": 5432},
    "many": [{"apiKey": "hush-hush"}],
    "given": "${OWN_TOKEN}",
}


def test_keywords_are_kept_as_references_and_shown_as_stars():
    assert public(KEYWORDS) == {
        "token": "${HYBRID_SWEEP_SECRET_TOKEN}",
        "data": "mnist",
        "pad_token": "<pad>",
        "at": {
            "url": "${HYBRID_SWEEP_SECRET_AT_URL}",
            "password": "${HYBRID_SWEEP_SECRET_AT_PASSWORD}",
            "port": 5432,
        },
        "many": [{"apiKey": "${HYBRID_SWEEP_SECRET_MANY_0_APIKEY}"}],
        "given": "${OWN_TOKEN}",
    }
    assert public(public(KEYWORDS)) == public(KEYWORDS)
    assert "hush" not in str(harmless(KEYWORDS))
    assert harmless(KEYWORDS)["at"]["url"] == "postgresql://me:***@host/db"


def test_a_manifest_holds_references_and_the_environment_gives_the_values_back(tmp_path, monkeypatch):
    keywords = {"token": "hush-hush", "at": {"password": "hush-hush"}}
    begin(tmp_path / "out", sweep(workload={"name": "a:B", **keywords}), 100, {})
    files = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files and not any(b"hush" in content for content in files)
    kept = json.loads((tmp_path / "out" / "manifest.json").read_bytes())["spec"]["workload"]
    assert kept.pop("name") == "a:B"
    with pytest.raises(UserError, match=r"no environment variable HYBRID_SWEEP_SECRET_TOKEN: set it"):
        whole_keywords(kept)
    monkeypatch.setenv("HYBRID_SWEEP_SECRET_TOKEN", "hush-hush")
    monkeypatch.setenv("HYBRID_SWEEP_SECRET_AT_PASSWORD", "hush-hush")
    assert whole_keywords(kept) == keywords


def test_what_quotes_a_secret_is_told_without_it(monkeypatch):
    monkeypatch.setenv("OWN_TOKEN", "own-secret")
    monkeypatch.setenv("OWN_PLACE", "/data/mnist")
    assert one_line("hush-hush own-secret") == "hush-hush own-secret"
    resolved({**KEYWORDS, "place": "${OWN_PLACE}"})
    assert (
        named(RuntimeError("401 for hush-hush, own-secret and 123456"))
        == "RuntimeError: 401 for ***, *** and ***"
    )
    assert without_secrets("no /data/mnist at mnist <pad>") == "no /data/mnist at mnist <pad>"
