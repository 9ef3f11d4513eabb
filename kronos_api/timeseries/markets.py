"""The exchanges whose calendars are known: names, countries, and other words for them.

`find_markets` looks a market up by any of these words, so that a caller who knows the market but
not its code gets the code.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from functools import cache
from typing import Final

SUGGESTIONS: Final = 3
NEARLY_AS_GOOD: Final = 0.05
"""A word is suggested beside the one that is spelt most alike if it is so close to it."""

# Code, exchange, country, other words: country codes, cities, suffixes of tickers, short names.
_TABLE: Final = """
24/7|Round the clock|worldwide|crypto cryptocurrency bitcoin btc usdt always
24/5|Round the clock on weekdays|worldwide|forex fx currency currencies metals xau
AIXK|Astana International Exchange|Kazakhstan|kz aix
ASEX|Athens Stock Exchange|Greece|gr at athex xath
BVMF|B3, Brasil Bolsa Balcão|Brazil|br sa b3 bovespa paulo ibovespa
CMES|CME Globex futures|United States|us usa cme globex chicago futures es nq
IEPA|ICE Futures U.S.|United States|us usa ice ifus ice futures
XAMS|Euronext Amsterdam|Netherlands|nl as aex euronext holland
XASX|Australian Securities Exchange|Australia|au ax asx sydney
XBDA|Bermuda Stock Exchange|Bermuda|bm
XBEL|Belgrade Stock Exchange|Serbia|rs
XBKK|Stock Exchange of Thailand|Thailand|th bk set bangkok
XBOG|Colombia Stock Exchange|Colombia|co bvc bogota
XBOM|BSE and NSE India|India|in ns bo nse bse nseindia bombay mumbai nifty sensex
XBRA|Bratislava Stock Exchange|Slovakia|sk
XBRU|Euronext Brussels|Belgium|be br euronext
XBSE|Bucharest Stock Exchange|Romania|ro bvb
XBUD|Budapest Stock Exchange|Hungary|hu bux
XBUE|Buenos Aires Stock Exchange|Argentina|ar ba byma
XCBF|Cboe Futures Exchange|United States|us usa cboe cfe vix
XCSE|Nasdaq Copenhagen|Denmark|dk
XCYS|Cyprus Stock Exchange|Cyprus|cy nicosia
XDUB|Euronext Dublin|Ireland|ie ir euronext ise
XDUS|Börse Düsseldorf|Germany|de du dusseldorf
XEEE|European Energy Exchange|Germany|de eex leipzig power
XETR|Xetra|Germany|de xetra frankfurt dax
XEUR|Eurex|Germany|de eurex futures fdax
XFRA|Börse Frankfurt|Germany|de f fwb
XHAM|Börse Hamburg|Germany|de hm
XHEL|Nasdaq Helsinki|Finland|fi he
XHKG|Hong Kong Exchanges|Hong Kong|hk hkex sehk hongkong hangseng
XICE|Nasdaq Iceland|Iceland|is reykjavik
XIDX|Indonesia Stock Exchange|Indonesia|id jk idx jakarta
XIST|Borsa Istanbul|Türkiye|tr is bist turkey
XJSE|Johannesburg Stock Exchange|South Africa|za jo jse
XKAR|Pakistan Stock Exchange|Pakistan|pk psx karachi
XKLS|Bursa Malaysia|Malaysia|my kl klse kuala lumpur
XKRX|Korea Exchange|South Korea|kr ks kq krx kospi kosdaq seoul
XLIM|Lima Stock Exchange|Peru|pe bvl
XLIS|Euronext Lisbon|Portugal|pt ls euronext
XLIT|Nasdaq Vilnius|Lithuania|lt
XLJU|Ljubljana Stock Exchange|Slovenia|si
XLON|London Stock Exchange|United Kingdom|uk gb l lse england britain ftse
XLUX|Luxembourg Stock Exchange|Luxembourg|lu
XMAD|Bolsa de Madrid|Spain|es mc bme ibex
XMEX|Mexican Stock Exchange|Mexico|mx bmv mexico
XMIL|Borsa Italiana|Italy|it mi milan milano
XMOS|Moscow Exchange|Russia|ru me moex
XNYS|New York Stock Exchange and Nasdaq|United States|us usa nyse amex arca newyork wallstreet
XNZE|New Zealand Exchange|New Zealand|nz nzx auckland wellington
XOSL|Oslo Børs|Norway|no ol oslo
XPAR|Euronext Paris|France|fr pa euronext cac
XPHS|Philippine Stock Exchange|Philippines|ph pse manila
XPRA|Prague Stock Exchange|Czechia|cz pr pse czech
XRIS|Nasdaq Riga|Latvia|lv
XSAU|Saudi Exchange|Saudi Arabia|sa sr tadawul riyadh
XSES|Singapore Exchange|Singapore|sg si sgx
XSGO|Santiago Stock Exchange|Chile|cl sn
XSHG|Shanghai and Shenzhen Stock Exchanges|China|cn ss sz sh sse szse ashare ashares prc csi
XSTO|Nasdaq Stockholm|Sweden|se st omx
XSTU|Börse Stuttgart|Germany|de sg
XSWX|SIX Swiss Exchange|Switzerland|ch sw six zurich smi
XTAE|Tel Aviv Stock Exchange|Israel|il ta tase telaviv
XTAI|Taiwan Stock Exchange|Taiwan|tw twse tpex taipei
XTAL|Nasdaq Tallinn|Estonia|ee
XTKS|Tokyo Stock Exchange|Japan|jp t jpx tse nikkei
XTSE|Toronto Stock Exchange|Canada|ca to tsx tsxv
XWAR|Warsaw Stock Exchange|Poland|pl wa gpw
XWBO|Wiener Börse|Austria|at vi vie vienna
XZAG|Zagreb Stock Exchange|Croatia|hr zse
us_futures|US futures, 18:00 to 18:00|United States|us usa futures
"""
_COMMON: Final = {"STOCK", "EXCHANGE", "EXCHANGES", "OF", "AND", "THE", "BOLSA", "DE", "ON", "TO"}


@cache
def markets() -> dict[str, tuple[str, str]]:
    """Exchange and country of each code."""
    return {code: (name, country) for code, name, country, _ in _rows()}


def find_markets(words: str, known: dict[str, str]) -> list[str]:
    """Codes of the markets that `words` most likely mean, best first, at most `SUGGESTIONS`.

    `known` are the codes and aliases in capitals, and the code of each. Spelling counts only where
    no word names a market.
    """
    index = _index()
    parts = [part for part in re.split(r"[\W_]+", words.upper()) if part]
    joined = "".join(parts)
    hits = Counter(code for part in dict.fromkeys((joined, *parts)) for code in index.get(part, ()))
    found = [code for code, _ in hits.most_common(SUGGESTIONS)]
    if not found:
        spelt = known | {word: codes[0] for word, codes in index.items() if len(word) > 3}
        near = difflib.get_close_matches(joined, spelt, n=SUGGESTIONS, cutoff=0.6)
        alike = {word: difflib.SequenceMatcher(None, word, joined).ratio() for word in near}
        best = max(alike.values(), default=0)
        found = [spelt[word] for word in near if alike[word] > best - NEARLY_AS_GOOD]
    return list(dict.fromkeys(found))


def _rows() -> list[list[str]]:
    return [line.split("|") for line in _TABLE.strip().splitlines()]


@cache
def _index() -> dict[str, list[str]]:
    """Codes by each word, in capitals; a country's largest exchange first."""
    index: dict[str, list[str]] = defaultdict(list)
    for code, name, country, others in _rows():
        words = re.split(r"[\W_]+", f"{name} {country} {others}".upper())
        words.append(re.sub(r"\W", "", country.upper()))
        for word in dict.fromkeys(words):
            if word and word not in _COMMON:
                index[word].append(code)
    for codes in index.values():
        codes.sort(key=lambda code: code not in _LARGEST)
    return dict(index)


_LARGEST: Final = {"24/7", "24/5", "XNYS", "XETR", "XSHG", "XBOM", "XPAR"}
