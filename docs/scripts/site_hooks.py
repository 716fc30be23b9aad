"""What mkdocs.yml needs beyond the pages in docs/: pages of the repository, and their links."""

import pathlib
import posixpath
import re
from typing import Any

import griffe
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "configs/README.md": "configs.md",
}
"""Pages that lie outside of docs/, and where the site has them."""
LINK = re.compile(r"(!?)\[([^\]]+)\]\(([^)#\s]*)(#[^)]*)?\)")
LOADED = re.compile(r'(?:src="|<link rel="(?:stylesheet|preconnect)" href=")(https?://[^"]*)')
"""Addresses of scripts, pictures, styles and fonts."""
log = get_plugin_logger("ncl_jax")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that lie outside of docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links between files of the repository become links between pages of the site.

    What the site does not have (code, notebooks) stays as words; a file that does not exist stays
    a link, so that the strict build reports it.
    """
    here = {site: source for source, site in PAGES.items()}.get(
        page.file.src_uri, f"docs/{page.file.src_uri}"
    )

    def link(found: re.Match[str]) -> str:
        picture, words, target, anchor = found.groups(default="")
        if not target or "://" in target:
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        site = PAGES.get(path, path.removeprefix("docs/") if path.startswith("docs/") else "")
        if not site:
            return words if (ROOT / path).exists() else found[0]
        relative = posixpath.relpath(site, posixpath.dirname(page.file.src_uri) or ".")
        return f"{picture}[{words}]({relative}{anchor})"

    return LINK.sub(link, markdown)


def on_pre_build(config: Any) -> None:
    """Warns about public names without a docstring; the strict build fails on a warning."""
    for name in undocumented(sorted((ROOT / "docs" / "api").glob("*.md"))):
        log.warning("%s is public and has no docstring", name)


def on_post_build(config: Any) -> None:
    """Warns about pages that load something from elsewhere: no page may need a network."""
    for page in sorted(pathlib.Path(config.site_dir).rglob("*.html")):
        for address in LOADED.findall(page.read_text()):
            log.warning("%s loads %s", page.relative_to(config.site_dir), address)


def undocumented(pages: list[pathlib.Path]) -> list[str]:
    """Names of the API reference without a docstring, private and inherited ones left out."""
    package: Any = griffe.load("ncl_jax", search_paths=[str(ROOT)])
    missing = []
    for page in pages:
        for path in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE):
            missing += _undocumented(package[path.removeprefix("ncl_jax.")], path)
    return missing


def _undocumented(thing: Any, path: str) -> list[str]:
    target = thing.final_target if thing.is_alias else thing
    missing = [] if target.has_docstring or target.is_attribute else [path]
    if target.is_class:
        for name, member in target.members.items():
            if not name.startswith("_") and not member.is_attribute:
                missing += _undocumented(member, f"{path}.{name}")
    return missing
