"""Clients that people have already, over a socket: Cohere's own, and LiteLLM as three providers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import cohere
import litellm
import pytest
import uvicorn

from serving.answers import NotReady, Overloaded
from serving.api import application
from serving.limits import Limits
from tests.serving.fake import FakeAnswering

DOCUMENTS = ["Garden Hose", "Velvet Sofa", "Velvet Cushion", "Green Sofa"]
ORDER = [1, 2, 3, 0]


@pytest.fixture(scope="module")
def fake() -> FakeAnswering:
    return FakeAnswering()


@pytest.fixture(scope="module")
def server(fake: FakeAnswering) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(application(lambda: fake, Limits()), log_level="warning")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=10)


@pytest.fixture(autouse=True)
def well(fake: FakeAnswering) -> Iterator[None]:
    yield
    fake.error = None


def test_coheres_second_client(server: str) -> None:
    client = cohere.ClientV2(api_key="none", base_url=server)
    got = client.rerank(model="any", query="velvet sofa", documents=DOCUMENTS)
    assert [result.index for result in got.results] == ORDER
    scores = [result.relevance_score for result in got.results]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)
    assert got.id
    assert got.meta
    assert got.meta.api_version
    assert got.meta.api_version.version == "2"
    best = client.rerank(
        model="any", query="velvet sofa", documents=DOCUMENTS, top_n=2, max_tokens_per_doc=4096
    )
    assert [result.index for result in best.results] == ORDER[:2]


def test_coheres_first_client(server: str) -> None:
    client = cohere.Client(api_key="none", base_url=server)
    documents: Any = [{"text": text} for text in DOCUMENTS]
    got = client.rerank(
        model="any",
        query="velvet sofa",
        documents=documents,
        rank_fields=["text"],
        return_documents=True,
    )
    assert [result.index for result in got.results] == ORDER
    document = got.results[0].document
    assert document
    assert document.text == "Velvet Sofa"


def test_coheres_client_knows_our_errors(server: str, fake: FakeAnswering) -> None:
    client = cohere.ClientV2(api_key="none", base_url=server)

    def ask(query: str, **options: Any) -> Any:
        # one attempt: it would wait and try again as told
        return client.rerank(
            model="any",
            query=query,
            documents=DOCUMENTS,
            request_options={"max_retries": 0, **options},
        )

    with pytest.raises(cohere.BadRequestError) as empty:
        ask("")
    assert empty.value.body["message"] == "query: empty; want at least a word"
    with pytest.raises(cohere.UnprocessableEntityError, match="unknown field `top_k`"):
        ask("velvet", additional_body_parameters={"top_k": 3})
    fake.error = Overloaded(1.0)
    with pytest.raises(cohere.TooManyRequestsError):
        ask("velvet")
    fake.error = NotReady()
    with pytest.raises(cohere.ServiceUnavailableError):
        ask("velvet")


PROVIDERS = ["cohere/any", "jina_ai/any", "huggingface/any"]


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize("top_n", [None, 2])
def test_litellm(server: str, model: str, top_n: int | None) -> None:
    got = litellm.rerank(
        model=model,
        query="velvet sofa",
        documents=list(DOCUMENTS),
        top_n=top_n,
        return_documents=True,
        api_base=server,
        api_key="none",
    )
    assert [result["index"] for result in got.results] == ORDER[:top_n]
    assert got.results[0]["document"]["text"] == "Velvet Sofa"
    assert 0 < got.results[0]["relevance_score"] < 1


@pytest.mark.parametrize("model", PROVIDERS)
def test_litellm_knows_that_we_are_busy(server: str, model: str, fake: FakeAnswering) -> None:
    fake.error = Overloaded(1.0)
    with pytest.raises(Exception, match="too many requests wait") as busy:
        litellm.rerank(
            model=model,
            query="velvet",
            documents=DOCUMENTS,
            api_base=server,
            api_key="none",
            max_retries=0,
        )
    assert not isinstance(busy.value, AssertionError)
