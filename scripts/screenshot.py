"""Takes docs/console.png, the picture of the console in README and the documents: `make screenshot`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from tests.helpers.services import ADMIN, lay_out, start_service, write
from tests.helpers.waiting import require_browser

TOP = Path(__file__).parents[1]
TARGET = TOP / "docs" / "console.png"
MAX_BYTES = 150_000
INVENTORY = """\
[web]
web[1:3]
[db]
db1
[all:vars]
ansible_connection=local
ansible_python_interpreter="{{ ansible_playbook_python }}"
"""
PLAYBOOK = """\
# Brings the shop to its newest release.
- name: Deploy the shop
  hosts: all
  gather_facts: false
  tasks:
    - name: Fetch the release
      ansible.builtin.command: echo release 4.2.1
    - name: Check the free disk space
      ansible.builtin.assert: {that: inventory_hostname != 'db1', fail_msg: "only 212 MB free, 1 GB needed"}
    - name: Unpack it
      ansible.builtin.command: sleep 0.2
    - name: Restart the shop
      ansible.builtin.command: echo restarted
"""

# The temp folder of this script is in no other picture.
_RENAME = """([from, to]) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(from, to);
}"""


def main() -> int:
    root = Path(tempfile.mkdtemp(prefix="fl-shot-"))
    try:
        lay_out(root)
        write(root / "playbooks/shop/deploy.yml", PLAYBOOK)
        write(root / "inventory", INVENTORY)
        service = start_service(root, "default_inventory = inventory\n")
        try:
            task_id = service.submit("ansibleplaybook", {"playbook_dir": "shop", "playbook": "deploy.yml"})
            service.wait(task_id)
            _take(service.url, task_id, root)
        finally:
            service.stop()
    finally:
        shutil.rmtree(root)
    size = TARGET.stat().st_size
    print(f"{TARGET}: {size:,} bytes")
    return 0 if size <= MAX_BYTES else 1


def _take(url: str, task_id: str, root: Path) -> None:
    program = require_browser()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1120, "height": 760}, locale="en-GB", reduced_motion="reduce")
        page.request.post(f"{url}/api/session", data={"user": ADMIN[0], "password": ADMIN[1]})
        page.goto(f"{url}/#/tasks/{task_id}?tab=hosts")
        expect(page.get_by_text("Restart the shop").first).to_be_visible(timeout=20_000)
        page.evaluate(_RENAME, [str(root), "/srv/flansible"])
        page.screenshot(path=TARGET)
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
