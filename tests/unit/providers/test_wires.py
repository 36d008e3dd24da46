"""The table of wires, and the endpoints that wires are made with."""

import pytest

import providers
from gateway.catalogue.catalogue import Catalogue
from gateway.settings import ConfigurationError, Settings
from providers.base import Endpoint
from providers.demo.provider import DemoProvider
from providers.http.provider import HttpProvider
from providers.http.transport import Transport


@pytest.fixture
def row():
    transport = Transport()
    yield {"base_url": "http://x", "api_key": "k", "headers": {}, "transport": transport}
    transport.close()


def catalogue_of(tmp_path, rows):
    path = tmp_path / "models.toml"
    path.write_text(rows)
    return Catalogue.load(Settings(models_file=str(path)))


@pytest.mark.parametrize(
    ("wire", "kind"),
    [("openai", HttpProvider), ("anthropic", HttpProvider), ("demo", DemoProvider)],
)
def test_a_provider_is_made_by_the_name_of_its_wire(row, wire, kind):
    assert isinstance(providers.create(wire, **row), kind)


def test_an_unknown_wire_makes_no_provider(row):
    with pytest.raises(ValueError, match="'gopher': expected one of openai, anthropic, demo"):
        providers.create("gopher", **row)


def test_the_catalogue_and_the_table_know_the_same_wires():
    rows = Catalogue.load(Settings()).providers.values()
    assert {row.wire for row in rows} == set(providers.WIRES)


def test_an_unknown_wire_in_models_file_is_refused_with_the_names_of_all_wires(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        catalogue_of(tmp_path, '[providers.own]\nwire = "gopher"\nbase_url = "http://x"')
    assert '"own": wire must be one of ' in str(caught.value)
    assert all(wire in str(caught.value) for wire in providers.WIRES)


def test_a_file_that_replaces_the_built_in_rows_may_name_all_wires(tmp_path):
    rows = '[providers.own]\nwire = "anthropic"\nbase_url = "http://x"'
    assert set(catalogue_of(tmp_path, f"replace = true\n{rows}").providers) == {"own"}


@pytest.mark.parametrize("wire", providers.WIRES)
def test_only_a_demo_provider_needs_no_address(tmp_path, wire):
    row = f'[providers.own]\nwire = "{wire}"\n'
    with pytest.raises(ConfigurationError, match="base_url is missing"):
        catalogue_of(tmp_path, row)
    provider = catalogue_of(tmp_path, f"{row}demo = true").providers["own"]
    assert provider.missing(Settings()) is None


def test_an_endpoint_has_the_headers_of_every_request():
    endpoint = Endpoint.build("https://host/v1/", "/chat", "key", {"X-Team": "a"})
    assert endpoint.url == "https://host/v1/chat"
    assert endpoint.headers == {
        "X-Team": "a",
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "inference-service",
        "Authorization": "Bearer key",
    }


def test_an_operators_header_replaces_a_dialects_own_and_no_other():
    headers = {"version": "2", "authorization": "mine", "content-type": "text/plain"}
    endpoint = Endpoint.build("http://x", "", "key", headers, defaults={"Version": "1", "A": "b"})
    assert endpoint.headers["version"] == "2"
    assert endpoint.headers["A"] == "b"
    assert endpoint.headers["Authorization"] == "Bearer key"
    assert endpoint.headers["Content-Type"] == "application/json"
    assert len({name.lower() for name in endpoint.headers}) == len(endpoint.headers)


def test_an_operator_may_name_another_user_agent():
    headers = Endpoint.build("http://x", "", headers={"user-agent": "ours"}).headers
    assert [value for name, value in headers.items() if name.lower() == "user-agent"] == ["ours"]


def test_a_dialect_names_the_header_of_its_key():
    endpoint = Endpoint.build("http://x", "", "key", key_header="x-api-key", key_prefix="")
    assert endpoint.headers["x-api-key"] == "key"
    assert "Authorization" not in endpoint.headers


@pytest.mark.parametrize("key", ["", " \n"])
def test_without_a_key_no_credentials_are_sent(key):
    assert "Authorization" not in Endpoint.build("http://x", "", key).headers


def test_key_address_and_the_operators_headers_are_secret_and_a_dialects_own_are_not():
    headers = {"X-Token": "operators-token"}
    endpoint = Endpoint.build("http://x", "/p", "key\n", headers, defaults={"Version": "2023-06"})
    assert endpoint.secrets == ("key", "http://x", "operators-token")


def test_a_request_of_an_endpoint_is_json():
    endpoint = Endpoint.build("http://x", "/p")
    request = endpoint.request({"a": [1, "é"]})
    assert (request.url, request.headers) == (endpoint.url, endpoint.headers)
    assert request.body == '{"a":[1,"é"]}'.encode()
