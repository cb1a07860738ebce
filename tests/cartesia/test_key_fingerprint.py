"""The fingerprint of a listing is that of the API key that read all of its pages."""

import httpx

from tests.cartesia.client_fixture import EMPTY, KEY, LIST_URL, ClientFixture

ANOTHER = "sk_car_another.secret"
FIRST = {"data": [{"id": "a"}], "has_more": True}
LAST = {"data": [{"id": "b"}], "has_more": False}


async def fingerprint_of(api, clock, key: str, store_id: str = "store") -> str:
    api.get(LIST_URL).mock(return_value=httpx.Response(200, json=EMPTY))
    fixture = ClientFixture(clock, store_id=store_id)
    fixture.key.value = key
    return (await fixture.poll()).key_fingerprint


async def test_a_fingerprint_depends_on_the_key_and_the_store_and_has_neither(api, clock):
    found = await fingerprint_of(api, clock, KEY)
    assert found == await fingerprint_of(api, clock, KEY)
    assert found != await fingerprint_of(api, clock, ANOTHER)
    assert found != await fingerprint_of(api, clock, KEY, "another store")
    assert len(bytes.fromhex(found)) == 32
    assert KEY not in found
    assert await fingerprint_of(api, clock, KEY, "") == ""


async def test_a_list_is_read_again_when_the_key_is_rotated_meanwhile(api, clock):
    fixture = ClientFixture(clock, store_id="store")

    def rotate(request):
        if len(api.calls) == 0:
            fixture.key.value = ANOTHER
            return httpx.Response(200, json=FIRST)
        after = "starting_after" in request.url.params
        return httpx.Response(200, json=LAST if after else FIRST)

    api.get(LIST_URL).mock(side_effect=rotate)
    found = await fixture.poll()
    assert found.key_fingerprint == await fingerprint_of(api, clock, ANOTHER)
    assert list(found.fine_tunes) == ["a", "b"]


async def test_pages_of_two_organisations_are_not_one_list(api, clock):
    """The second page is empty for the other organisation: half of the fine-tunes would be gone."""
    fixture = ClientFixture(clock, store_id="store")

    def answer(request):
        if request.headers["authorization"] == f"Bearer {KEY}":
            fixture.key.value = ANOTHER
            return httpx.Response(200, json=FIRST)
        return httpx.Response(200, json=EMPTY)

    api.get(LIST_URL).mock(side_effect=answer)
    found = await fixture.poll()
    assert found.fine_tunes == {}
    assert found.key_fingerprint == await fingerprint_of(api, clock, ANOTHER)


async def test_a_key_that_changes_with_each_request_fails_the_poll(api, clock):
    fixture = ClientFixture(clock, store_id="store")

    def rotate(request):
        fixture.key.value = f"sk_car_number.{len(api.calls)}"
        after = "starting_after" in request.url.params
        return httpx.Response(200, json=LAST if after else FIRST)

    api.get(LIST_URL).mock(side_effect=rotate)
    error = await fixture.poll_error()
    assert (error.reason, str(error)) == ("protocol", "the API key changed while the list was read")


async def test_a_key_that_read_nothing_does_not_count(api, clock):
    fixture = ClientFixture(clock, store_id="store")
    answers = [httpx.Response(503), httpx.Response(200, json=EMPTY)]

    def rotate(request):
        fixture.key.value = ANOTHER
        return answers[len(api.calls)]

    api.get(LIST_URL).mock(side_effect=rotate)
    found = await fixture.poll()
    assert found.key_fingerprint == await fingerprint_of(api, clock, ANOTHER)
    assert api.calls.call_count == 3
