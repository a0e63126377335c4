"""A chain of LangChain and a query engine of LlamaIndex that answer from what they find among made-up facts.

all-MiniLM-L6-v2 finds, the bundled model answers, each in an engine of ours. The one nearest text is all that
the model is given: of two that tell the same kind of thing about different people, a model of four million
parameters takes the wrong one too often (80 % right with two texts, 71 % with three; the right one is always
among them).
"""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode

from langchain_quire import ChatVLLM, VLLMEmbeddings
from llama_index.embeddings.quire import VllmEmbedding
from llama_index.llms.quire import Vllm
from made_up_facts import made_up_facts, minilm, share_right

# What llama-index-core does by itself, where langchain-community is installed too.
pytestmark = pytest.mark.filterwarnings("ignore:.*langchain-community:DeprecationWarning")

PROMPT = (
    "Answer the question based only on the following context:\n{context}\n\nQuestion: {question}"
)
sizes = pytest.mark.parametrize("count", [24, pytest.param(200, marks=pytest.mark.slow)])


@sizes
def test_langchain(where: dict[str, Any], count: int) -> None:
    facts = made_up_facts(count)
    embeddings, chat = VLLMEmbeddings(model=minilm()), ChatVLLM(temperature=0, **where)
    store = InMemoryVectorStore.from_texts([fact.text for fact in facts], embeddings)
    found = store.as_retriever(search_kwargs={"k": 1}) | (lambda texts: texts[0].page_content)
    chain = (
        {"context": found, "question": RunnablePassthrough()}
        | ChatPromptTemplate.from_template(PROMPT)
        | chat
        | StrOutputParser()
    )
    answers = chain.batch([fact.question for fact in facts])
    assert share_right(facts, answers) >= 0.9
    chat.close()
    embeddings.close()


@sizes
def test_llama_index(where: dict[str, Any], count: int) -> None:
    facts = made_up_facts(count)
    embedding, llm = VllmEmbedding(minilm()), Vllm(temperature=0, **where)
    index = VectorStoreIndex([TextNode(text=fact.text) for fact in facts], embed_model=embedding)
    engine = index.as_query_engine(llm=llm, similarity_top_k=1)
    answers = [str(engine.query(fact.question)) for fact in facts]
    assert share_right(facts, answers) >= 0.9
    llm.close()
    embedding.close()
