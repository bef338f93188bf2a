"""Simulated shoppers: what they do with a page of items whose relevance is known.

Nobody here is real. A shopper reads a page from the top: clicks what attracts, or by accident;
goes on or gives up; may put what was clicked into the cart, order it, pay. How relevant an item
is decides each of these, so a better order gives more of everything. What to expect of a variant
follows from the same numbers without any draw: ``true_effects``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from abtest.shop import GRADES, PAGE, Floats, Ints, Shop

ACTIONS = (
    "impression",
    "click",
    "contact_supplier",
    "add_to_cart",
    "order",
    "pay",
    "refund",
    "exposure",
)
IMPRESSION, CLICK, CONTACT, CART, ORDER, PAY, REFUND, EXPOSURE = range(len(ACTIONS))

_WAIT_S = {CLICK: 15, CONTACT: 60, CART: 40, ORDER: 300, PAY: 60}
"""Median since the action before; log-normal."""
_MAX_WAIT_S = 1_200
"""So that a click is within half an hour of its impression, an order within a day of its click."""


@dataclass(frozen=True)
class Shoppers:
    """What shoppers are like. Grades run from 0 to 3.

    Raises:
        ValueError: A chance is not within 0 to 1, or a number that must be positive is not.
    """

    searches_a_day: float = 0.1
    """Mean of all people; those who come at all search more often."""
    activity: float = 0.5
    """Shape of the gamma distribution of people's rates: the smaller, the more they differ. So
    searches are negative-binomial, and fewer new people come day by day (Ehrenberg 1959)."""
    patience: tuple[float, ...] = (0.6, 0.8, 0.95)
    """Chance to look at the next item, of equally frequent kinds of people. The cascade: Craswell
    et al., WSDM 2008; giving up: Chapelle & Zhang, WWW 2009."""
    after_click: float = 0.7
    """Chance to look on after a click. Dependent click model: Guo, Liu & Wang, WSDM 2009."""
    quality: float = 0.5
    """Of the order that the control shows; see ``Shop.pages``."""
    accidents: float = 0.03
    """Chance that an item that is looked at is clicked whatever it is."""
    click: tuple[float, ...] = (0.0, 0.12, 0.35, 0.65)
    """Chance by grade, beside accidents."""
    contact: tuple[float, ...] = (0.01, 0.06, 0.12, 0.20)
    """Chance by grade to write to the supplier of what was clicked."""
    cart: tuple[float, ...] = (0.02, 0.10, 0.22, 0.40)
    """Chance by grade to put what was clicked into the cart."""
    order: tuple[float, ...] = (0.05, 0.20, 0.40, 0.60)
    """Chance by grade to order what is in the cart."""
    pay: tuple[float, ...] = (0.50, 0.70, 0.85, 0.92)
    """Chance by grade to pay what was ordered."""
    price_level: float = 0.5
    """Standard deviation between people of the logarithm of what they pay for an item."""
    currency: str = "EUR"

    def __post_init__(self) -> None:
        for name in ("click", "contact", "cart", "order", "pay"):
            if len(getattr(self, name)) != GRADES:
                raise ValueError(f"{name}: {getattr(self, name)}; want {GRADES}, one a grade")
        chances = ("after_click", "quality", "accidents")
        for name in ("patience", "click", "contact", "cart", "order", "pay", *chances):
            values = np.atleast_1d(getattr(self, name))
            if not len(values) or not ((values >= 0) & (values <= 1)).all():
                raise ValueError(f"{name}: {getattr(self, name)}; want chances, 0 to 1")
        for name in ("searches_a_day", "activity"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: {getattr(self, name)}; want more than 0")
        if not 0 <= self.price_level < math.inf:
            raise ValueError(f"price_level: {self.price_level}; want 0 or more")


@dataclass(frozen=True)
class Effect:
    """What is different for those who are not in the control. None of it: an A/A test.

    Raises:
        ValueError: A factor is negative or no number.
    """

    quality: float = 0.0
    """Added to the quality of the order that is shown."""
    click: float = 1.0
    """Factor of the chance to click an item that is looked at."""
    order: float = 1.0
    """Factor of the chance to order."""
    amount: float = 1.0
    """Factor of what is paid."""

    def __post_init__(self) -> None:
        for name in ("click", "order", "amount"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: {getattr(self, name)}; want a factor, 0 or more")
        if not -1 <= self.quality <= 1:
            raise ValueError(f"quality: {self.quality}; want a difference, -1 to 1")


@dataclass(frozen=True, eq=False)
class Deeds:
    """What followed pages, one row an action, clicks first."""

    row: Ints
    """Of the page."""
    place: Ints
    """Of the item, 0 for the first."""
    action: NDArray[np.int8]
    """Of ``ACTIONS``."""
    wait_ms: NDArray[np.int64]
    """Since the page was shown."""

    def take(self, rows: NDArray[Any]) -> Deeds:
        """Rows by number or mask."""
        return Deeds(*(getattr(self, field.name)[rows] for field in fields(self)))

    @staticmethod
    def join(parts: Sequence[Deeds]) -> Deeds:
        """All rows of ``parts``."""
        names = [field.name for field in fields(Deeds)]
        return Deeds(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def react(
    grades: Ints,
    patience: Floats,
    is_treated: NDArray[np.bool_],
    habits: Shoppers,
    effect: Effect,
    rng: np.random.Generator,
) -> Deeds:
    """What shoppers do with the pages that they see.

    Args:
        grades: Of the items, from the top. [pages, PAGE]
        patience: Of whoever sees the page. [pages]
        is_treated: Whether the effect is on. [pages]
        habits: What shoppers are like.
        effect: What is different where it is on.
        rng: What decides.
    """
    attraction = _attraction(grades, np.where(is_treated, effect.click, 1.0)[:, None], habits)
    luck = rng.random((2, *grades.shape))
    looks = np.ones(len(grades), bool)
    is_clicked = np.zeros(grades.shape, bool)
    for rank in range(grades.shape[1]):
        is_clicked[:, rank] = looks & (luck[0, :, rank] < attraction[:, rank])
        goes_on = np.where(is_clicked[:, rank], habits.after_click, patience)
        looks &= luck[1, :, rank] < goes_on
    row, place = np.nonzero(is_clicked)
    click = Deeds(row, place, np.full(len(row), CLICK, np.int8), _waits(CLICK, len(row), rng))

    def after(deeds: Deeds, action: int, chance: Sequence[float], factor: float = 1.0) -> Deeds:
        """Those that lead to ``action``."""
        likely = np.asarray(chance)[grades[deeds.row, deeds.place]]
        likely = np.where(is_treated[deeds.row], factor, 1.0) * likely
        then = deeds.take(rng.random(len(likely)) < likely)
        return Deeds(
            then.row,
            then.place,
            np.full(len(then.row), action, np.int8),
            then.wait_ms + _waits(action, len(then.row), rng),
        )

    contact = after(click, CONTACT, habits.contact)
    cart = after(click, CART, habits.cart)
    order = after(cart, ORDER, habits.order, effect.order)
    return Deeds.join([click, contact, cart, order, after(order, PAY, habits.pay)])


class Expected(NamedTuple):
    """What a search brings on average."""

    impressions: float
    clicks: float
    contacts: float
    carts: float
    orders: float
    paid: float
    """Of all orders."""


def expected(shop: Shop, habits: Shoppers, effect: Effect) -> Expected:
    """What a search of those with the effect brings, without any draw."""
    page = shop.pages(habits.quality + effect.quality)
    grades = np.take_along_axis(shop.grades, page, axis=1)
    prices = shop.prices[np.take_along_axis(shop.pools, page, axis=1)]
    attraction = _attraction(grades, effect.click, habits)
    clicks = np.zeros(grades.shape)
    for patience in habits.patience:
        looks = np.ones(len(grades))
        for place in range(PAGE):
            hit = looks * attraction[:, place]
            clicks[:, place] += hit / len(habits.patience)
            looks = (looks - hit) * patience + hit * habits.after_click
    clicks *= shop.popularity[:, None]
    contact, cart, order, pay = (
        np.asarray(chance)[grades]
        for chance in (habits.contact, habits.cart, habits.order, habits.pay)
    )
    carts = clicks * cart
    orders = carts * np.minimum(effect.order * order, 1)
    return Expected(
        impressions=PAGE,
        clicks=float(clicks.sum()),
        contacts=float((clicks * contact).sum()),
        carts=float(carts.sum()),
        orders=float(orders.sum()),
        paid=effect.amount * float((orders * pay * prices).sum()),
    )


def true_effects(shop: Shop, habits: Shoppers, effect: Effect) -> dict[str, float]:
    """The relative effect on each metric that an analysis should find; 0 where all is alike."""
    control, treatment = expected(shop, habits, Effect()), expected(shop, habits, effect)

    def change(numerator: str, denominator: str) -> float:
        old, new = (
            getattr(one, numerator) / (getattr(one, denominator) or math.nan)
            for one in (control, treatment)
        )
        return new / old - 1 if old else math.nan

    return {
        "ctr": change("clicks", "impressions"),
        "cvr": change("orders", "clicks"),
        "orders_per_impression": change("orders", "impressions"),
        "contacts_per_click": change("contacts", "clicks"),
        # all search equally often, so per user is as per search
        "pay": change("paid", "impressions"),
    }


def _attraction(grades: Ints, factor: Any, habits: Shoppers) -> Floats:
    """Chance of a click on an item that is looked at."""
    usual = habits.accidents + (1 - habits.accidents) * np.asarray(habits.click)[grades]
    return np.asarray(np.minimum(factor * usual, 1))


def _waits(action: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Milliseconds since the action before, a second at least."""
    seconds = _WAIT_S[action] * np.exp(rng.normal(size=count))
    return np.asarray(1_000 * np.clip(seconds, 1, _MAX_WAIT_S), np.int64)
