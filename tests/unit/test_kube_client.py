"""The client of the Kubernetes API: which requests it makes for a resource, and what it does with large answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.agent.stores import http
from cni.agent.stores.kube.client import Api
from cni.agent.stores.kube.config import Access
from cni.agent.stores.kube.errors import ApiError, TooLarge
from cni.agent.stores.kube.resource import Resource, object_key
from tests.unit.kube_api import ObjectApi, query_of

if TYPE_CHECKING:
    from collections.abc import Iterator

METADATA = "application/json;as=PartialObjectMetadataList", "application/json;as=PartialObjectMetadata"
PODS = Resource("pods", "/api/v1/pods", 8, "spec.nodeName=one,status.phase!=Failed", METADATA)
SIZE = 1000  # bytes of a pod in these tests


@pytest.fixture
def api() -> Iterator[ObjectApi]:
    scripted = ObjectApi(f"pods {PODS.fields}")
    with scripted.server:
        yield scripted


def client_of(api: ObjectApi) -> Api:
    return Api(lambda: Access(api.server.url))


def fill(api: ObjectApi, *sizes: int) -> list[str]:
    """Stores pods of these sizes; returns their names."""
    names = [f"pod-{number}" for number in range(len(sizes))]
    for name, size in zip(names, sizes, strict=True):
        api.collections[f"pods {PODS.fields}"].store(name, {"metadata": {"name": name}, "filler": "x" * size})
    return names


def listed(api: ObjectApi) -> list[str]:
    names: list[str] = []
    client_of(api).list(PODS, lambda item: names.append(item["metadata"]["name"]))
    return names


def test_a_list_asks_for_a_page_of_the_selected_objects_as_the_resource_says(api: ObjectApi) -> None:
    names = fill(api, *[SIZE] * 9)
    assert listed(api) == names
    first, second = api.server.requests
    assert query_of(first) == {"limit": "8", "fieldSelector": PODS.fields}
    assert query_of(second) == {"limit": "8", "continue": "8", "fieldSelector": PODS.fields}
    assert {request.headers["accept"] for request in (first, second)} == {METADATA[0]}


def test_a_watch_asks_for_changes_of_the_selected_objects_as_the_resource_says(api: ObjectApi) -> None:
    (name,) = fill(api, SIZE)
    stream = client_of(api).watch(PODS, "10", 60)
    kind, item = next(iter(stream))
    stream.close()
    assert (kind, item["metadata"]["name"]) == ("ADDED", name)
    (request,) = api.server.requests
    assert query_of(request) == {"watch": "true", "resourceVersion": "10", "allowWatchBookmarks": "true",
                                 "timeoutSeconds": "60", "fieldSelector": PODS.fields}  # fmt: skip
    assert request.headers["accept"] == METADATA[1]


def test_a_page_that_is_too_large_is_read_in_smaller_ones(api: ObjectApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LARGEST", 100_000)
    names = fill(api, *[SIZE] * 8, *[40_000] * 8, *[SIZE] * 8)
    assert listed(api) == names
    limits = [int(query_of(request)["limit"]) for request in api.server.requests]
    assert limits.count(8) > 2, "the pages after it are of the usual size"
    assert limits.count(1) == 6, "the last two large ones have room in one page"


def test_one_object_that_is_too_large_is_an_error(api: ObjectApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LARGEST", 100_000)
    fill(api, SIZE, 200_000)
    with pytest.raises(TooLarge, match=r"list pods: response larger than"):
        listed(api)


@pytest.mark.parametrize(
    "metadata", [None, [], {}, {"name": ""}, {"name": 7}, {"name": ["a"]}, {"name": "a", "namespace": 7}]
)
def test_an_object_without_a_name_is_an_error(metadata: Any) -> None:
    for item in ({"metadata": metadata}, metadata):
        with pytest.raises(ApiError, match=r"pods: an object has no metadata\.name"):
            object_key(PODS, item)


def test_an_object_is_known_by_namespace_and_name() -> None:
    assert object_key(PODS, {"metadata": {"name": "a", "namespace": "blue"}}) == ("blue", "a")
    assert object_key(PODS, {"metadata": {"name": "a", "namespace": None}}) == ("", "a")
