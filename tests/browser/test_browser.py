"""The browser of results in a real browser: what a reader clicks, types, shares and prints."""

from __future__ import annotations

import functools
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from infini_eval.reports.analyze import analyze_run
from infini_eval.reports.compare import compare_runs
from infini_eval.reports.site import Site

VIEWS = {
    "runs": "",
    "run": "#/run/on",
    "samples": "#/run/on/samples?length=16384&state=wrong",
    "sample": "#/run/ablate/samples",
    "diagnosis": "#/run/on/diagnosis",
    "settings": "#/run/hostile/settings",
    "judged": "#/run/judged.json",
    "compare": "#/compare?runs=on,ablate",
    "training": "#/track",
}


def rows(page):
    return page.locator("main tbody tr")


def first_sample(page, settled):
    page.locator("main tbody a").first.click()
    return settled(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_fits_its_width(view, width, scheme, address, opened, settled, pictures):
    page = opened(address + VIEWS[view], width, scheme)
    if view == "sample":
        first_sample(page, settled)
    page.screenshot(path=pictures / f"{view}-{width}-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    stray = """[...document.querySelectorAll('main *')].filter((one) =>
        one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('.wide, .chart, .strip, .keys')).length"""
    assert page.evaluate(stray) == 0


def test_the_list_searches_filters_sorts_and_keeps_it_in_its_address(address, opened, settled):
    page = opened(address)
    assert rows(page).count() == 7
    page.fill("#search", "train")
    settled(page)
    assert rows(page).count() == 3
    assert page.evaluate("document.activeElement.id") == "search"
    page.get_by_role("button", name="accuracy").click()
    settled(page)
    page.get_by_role("button", name="accuracy").click()
    settled(page)
    names = [name.removeprefix("train-") for name in rows(page).locator("td.name").all_inner_texts()]
    assert names == ["3000", "2000", "1000"]
    assert "q=train" in page.url and "sort=accuracy%3Adown" in page.url
    assert rows(opened(page.url)).locator("td.name").all_inner_texts()[0] == "train-3000"


def test_a_cell_opens_its_samples_and_a_sample_is_read(address, opened, settled, results):
    page = opened(address + "#/run/on")
    block = analyze_run(results[0] / "on").summary.by_context_length[2]
    cell = next(cell for cell in block.results_by_depth if cell.depth_percent == 30)
    link = page.locator(".heat a[aria-label*='16k tokens, 30 % deep']")
    assert link.inner_text() == f"{cell.accuracy:.0f}"
    link.click()
    settled(page)
    assert rows(page).count() == 6
    assert rows(page).locator(".state.right").count() == cell.correct
    wrong = rows(page).filter(has=page.locator(".state.wrong")).first
    expected, answered = wrong.locator("td").nth(5).inner_text(), wrong.locator("td").nth(6).inner_text()
    wrong.locator("a").click()
    settled(page)
    body = page.locator(".sample").inner_text()
    assert f"asked for\n{expected}" in body and answered.strip() in body
    assert "kind of error" in body and "exact_digits 0" in body
    assert page.locator(".strip .here").count() == 1 and "compressions between them" in body
    assert f"The pass key is {expected}" in body
    assert "the run does not say which data set it read" in body


def test_two_runs_are_compared_by_python_s_numbers(address, opened, settled, results):
    page = opened(address + "?#/")
    page.check("input[aria-label='compare on']")
    settled(page)
    page.check("input[aria-label='compare ablate']")
    settled(page)
    page.get_by_role("link", name="Compare 2 runs").click()
    settled(page)
    first, second = re.search(r"runs=(\w+)%2C(\w+)", page.url).groups()
    found = compare_runs([results[0] / first, results[0] / second]).comparisons[0]
    shown = " ".join(page.locator("main").inner_text().split())
    assert f"{abs(found.overall.difference):.1f}" in rows(page).first.inner_text()
    assert found.conclusion in shown
    keys = page.locator("article").first.locator("tbody tr")
    assert keys.count() == found.overall.only_a
    keys.first.get_by_role("link", name="B").click()
    settled(page)
    assert page.locator(".sample .state.wrong").count() == 1


def test_runs_of_other_samples_are_not_compared_and_why_is_said(address, opened):
    page = opened(address + "#/compare?runs=on,train-1000,judged.json")
    said = page.locator("main").inner_text()
    assert "were not run on the same data" in said
    assert "a judged run is not compared" in said


def test_back_and_forward(address, opened, settled):
    page = opened(address)
    page.get_by_role("link", name="on", exact=True).click()
    settled(page)
    page.locator(".heat a").first.click()
    settled(page)
    samples = page.url
    first_sample(page, settled)
    assert "/sample/" in page.url
    page.go_back()
    settled(page)
    assert page.url == samples
    page.go_back()
    settled(page)
    assert page.locator(".heat").count() > 0
    page.go_forward()
    settled(page)
    assert page.url == samples and rows(page).count() == 6


def test_keys(address, opened, settled):
    page = opened(address + "#/run/on/samples?length=1024")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.press("Escape")
    first_sample(page, settled)
    first = page.url
    page.keyboard.press("j")
    page.wait_for_url(lambda url: url != first)
    settled(page)
    page.keyboard.press("k")
    page.wait_for_url(first)
    settled(page)
    page.keyboard.press("u")
    page.wait_for_url("**/samples?length=1024")
    settled(page)
    page.keyboard.press("?")
    assert page.locator("dialog").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()


def test_a_cell_is_reached_and_opened_by_keys_alone_and_focus_is_seen(address, opened, settled):
    page = opened(address + "#/run/on")
    page.locator(".heat a").first.focus()
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert (outline, "1k tokens, 10 % deep" in label) == ("solid", True)
    page.keyboard.press("Enter")
    page.wait_for_url("**/samples?length=1024&depth=10")


def test_dark_follows_the_system_and_the_switch_is_kept(address, opened, settled):
    background = "getComputedStyle(document.body).backgroundColor"
    light, dark = (opened(address, scheme=scheme) for scheme in ("light", "dark"))
    assert light.evaluate(background) != dark.evaluate(background)
    light.keyboard.press("d")
    assert light.evaluate(background) == dark.evaluate(background)
    light.reload()
    settled(light)
    assert light.evaluate(background) == dark.evaluate(background)


def test_on_a_phone_accuracy_and_n_are_in_sight(address, opened):
    page = opened(address, 390)
    card = rows(page).first
    for label in ("accuracy", "n"):
        box = card.locator(f"td[data-label='{label}']").bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= 390


@pytest.mark.parametrize("part", ["", "/samples", "/samples?q=script", "/settings", "/sample"])
def test_hostile_text_is_shown_and_does_nothing(part, address, opened, settled):
    page = opened(address + f"#/run/hostile{part.replace('/sample', '/samples') if part == '/sample' else part}")
    if part == "/sample":
        first_sample(page, settled)
        assert "onerror=alert(1)" in page.locator(".sample").inner_text()
    assert page.title() != "owned"
    assert page.locator("img, main script, main svg[onload], [onerror]").count() == 0
    shown = page.locator("main").inner_text()
    assert "<script>" in shown and "{{ 7 * 7 }}" in shown
    assert "\u202e" not in shown
    assert "\\u202e" in shown or part not in ("/settings", "/sample")


def test_the_policy_stops_a_script_that_slips_in(address, browser):
    context = browser.new_context()
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.goto(address)
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'document.title=2'}))"
    )
    page.wait_for_timeout(200)
    assert page.title() not in ("1", "2")
    assert any("Content Security Policy" in line for line in said)
    context.close()


def test_judges_stand_side_by_side_and_where_they_differ(address, opened, settled):
    page = opened(address + "#/run/judged.json")
    judges = page.locator("table", has_text="protocol").first
    assert judges.locator("tbody tr").count() == 2
    heads = [text.strip() for text in judges.locator("th").all_inner_texts()]
    assert "right" in heads and "wrong" in heads and "pending" not in heads
    left = {round(box.bounding_box()["x"]) for box in judges.locator(".bar").all()}
    assert len(left) == 1
    page.get_by_role("link", name="Answers").click()
    settled(page)
    page.get_by_label("state").select_option("differ")
    settled(page)
    assert rows(page).count() == 4
    first_sample(page, settled)
    assert page.locator("article").count() == 2
    assert {"✗ wrong", "✓ right"} == {text.strip() for text in page.locator("article .state").all_inner_texts()}


def test_the_diagnosis_is_a_page(address, opened):
    page = opened(address + "#/run/on/diagnosis")
    text = page.locator("main").inner_text()
    assert "works" in text and "controls right" in text and "What memory adds for the right token" in text
    assert page.locator(".chart svg").count() == 1
    assert page.locator(".heat tbody tr").count() == 3


def test_the_diagnosis_of_a_failure_and_of_weights_that_cannot_be_asked(address, opened):
    text = opened(address + "#/run/ablate/diagnosis").locator("main").inner_text()
    assert "not read" in text and "the memory holds it. 3 of 3 go wrong first at token 1" in text
    assert "opened gates mend 3 of 3" in text and "How often the best head's read tells the answer" in text
    hostile = opened(address + "#/run/hostile/diagnosis")
    assert "onerror=alert(1)" in hostile.locator(".hero").inner_text()
    assert hostile.locator("main img").count() == 0


def test_training_over_its_steps(address, opened):
    page = opened(address + "#/track")
    section = page.locator("section", has_text="train, memory on")
    section.locator("summary").click()
    assert section.locator("tbody tr").count() == 3
    assert section.locator(".chart svg").count() == 1


def test_a_report_opens_from_disk(opened, settled, results, tmp_path):
    analyze_run(results[0] / "on").write_page(tmp_path)
    page = opened((tmp_path / "report.html").as_uri())
    assert page.title().startswith("0.7M Infini-Attention: passkey retrieval, memory on, 1k, 4k, 16k")
    page.locator(".heat a").first.click()
    settled(page)
    first_sample(page, settled)
    assert page.locator(".strip").count() == 1


def test_without_scripts_the_tables_are_there(opened, results, tmp_path):
    run = analyze_run(results[0] / "on")
    run.write_page(tmp_path)
    page = opened((tmp_path / "report.html").as_uri(), java_script_enabled=False)
    assert f"{run.summary.summary_stats.average_accuracy:.1f}" in page.locator("main").inner_text()
    assert page.locator("table").count() == 4
    assert page.locator("noscript").inner_text()


def test_a_bundle_works_on_any_web_server(opened, settled, results, tmp_path):
    Site(results).write(tmp_path / "site")
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *args: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        page = opened(f"http://127.0.0.1:{server.server_port}/site/")
        assert rows(page).count() == 7
        page.goto(f"http://127.0.0.1:{server.server_port}/site/#/compare?runs=on,ablate")
        settled(page)
        assert "Paired differences" in page.locator("main").inner_text()
        server.shutdown()
        thread.join()


def test_printed_it_has_no_controls_and_every_table(address, opened):
    page = opened(address + "#/run/on", scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#bar").is_hidden() and page.locator(".tabs").is_hidden()
    assert page.evaluate("[...document.querySelectorAll('details')].every((one) => one.open)")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_an_address_of_nothing_says_so(address, opened):
    for part in ("#/run/nobody", "#/run/on/nothing", "#/run/on/sample/none", "#/nowhere", "#/compare?runs=on"):
        said = opened(address + part).locator("main").inner_text()
        assert re.search("no run|no part|is not among|no such part|needs two runs", said), part
