// The fields of ad-hoc commands and playbooks, in groups.

import { session } from "../../api.js";
import { h } from "../../dom.js";
import { textareaField, choiceField, looseJson, looseJsonText, numberField, secretTextarea, secretField, strictJson, textField, checkboxField, parseInteger } from "../../fields.js";

const MODULES = ["ping", "setup", "command", "shell", "copy", "file", "service", "systemd", "package", "apt", "dnf", "user", "reboot", "debug", "fetch", "git"];
const VERBOSITY = [["", "Normal"], ...[1, 2, 3, 4, 5, 6].map((level) => [String(level), `-${"v".repeat(level)}`])];

/** Hosts, module and arguments of an ad-hoc command. */
export function adhocFields() {
  const list = h("datalist", { id: "launch-modules" }, MODULES.map((value) => h("option", { value })));
  const fields = [
    textField("host_pattern", "Hosts", { placeholder: "localhost", hint: "A host, a group, or a pattern such as web:!web3." }),
    textField("module", "Module", { placeholder: "ping", list: "launch-modules" }),
    textareaField("module_args", "Arguments", { parse: looseJson, format: looseJsonText, hint: 'As with ansible -a (name=nginx state=started), or an object such as {"name": "nginx"}.' }),
  ];
  return { fields, extra: list };
}

/** Limits of a playbook: hosts, tags, first play task. */
export function playbookFields() {
  return [
    textField("limit", "Limit", { hint: "Only these hosts or groups." }),
    textField("tags", "Tags", { hint: "Only these tags, separated by commas." }),
    textField("skip_tags", "Skip tags"),
    textField("start_at_task", "Start at play task"),
  ];
}

export function runFields(kind) {
  const fields = [
    kind === "adhoc" ? textField("limit", "Limit") : null,
    numberField("forks", "Forks"),
    choiceField("verbose_level", "Verbosity", VERBOSITY, { parse: parseInteger, format: (value) => (value === 0 ? "" : String(value)) }),
    textField("remote_user", "Connect as"),
    session.may_become ? textField("become_user", "Become user", { placeholder: "root" }) : null,
    numberField("time_limit", "Time limit in seconds"),
    textField("queue", "Queue", { placeholder: "default", hint: "Whose workers may run it." }),
  ];
  return fields.filter(Boolean);
}

export function checkboxFields(kind) {
  const fields = [
    checkboxField("check", "Check: predict, change nothing"),
    checkboxField("diff", "Diff: show what changes"),
    session.may_become ? checkboxField("become", "Become") : null,
    kind === "playbook" && session.may_use_git ? checkboxField("update_git_repo", "Pull the checkout first") : null,
  ];
  return fields.filter(Boolean);
}

export function secretFields() {
  const fields = [
    secretField("connection_password", "Connection password"),
    session.may_become ? secretField("become_password", "Become password") : null,
    secretField("vault_password", "Vault password"),
    secretTextarea("private_key", "Private key"),
    secretField("private_key_passphrase", "Passphrase of the private key"),
  ];
  return fields.filter(Boolean);
}

export function variablesField() {
  return textareaField("extra_vars", "Extra variables", {
    parse: looseJson,
    format: looseJsonText,
    hint: 'An object such as {"version": "1.2"}, or as with -e: version=1.2',
  });
}

/** All other fields of the API as JSON, so that a request that is run again keeps them. */
export function otherField() {
  return textareaField("other", "Other fields", {
    parse: strictObject,
    format: looseJsonText,
    hint: 'Any other field of the API, as an object such as {"timeout": 20, "lock": "database"}.',
  });
}

function strictObject(text) {
  const value = strictJson(text);
  if (value === undefined) return undefined;
  if (value === null || typeof value !== "object" || Array.isArray(value)) throw new Error('This has to be an object, such as {"timeout": 20}.');
  return value;
}
