"""The twin keeps the contract too, so what differs from it is wrong."""

import pytest

from support.dict_store import DictStore

pytest.register_assert_rewrite("support.store_contract")

from support.store_contract import StoreContract  # noqa: E402 - after the rewrite is asked for


class TestDictStore(StoreContract):
    async def open(self, directory):
        return DictStore()
