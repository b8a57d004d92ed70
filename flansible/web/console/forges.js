// Addresses of commits at forges whose address of a repository says how those of its commits are made.

const FORGES = { "github.com": "commit", "codeberg.org": "commit", "gitlab.com": "-/commit", "bitbucket.org": "commits" };
const URL_FORMS = /^(?:https:\/\/(?:[^@/]*@)?([^/:]+)\/|ssh:\/\/(?:[^@/]*@)?([^/:]+)(?::\d+)?\/|(?:[^@/:]+@)?([^/:@]+):)([^?#]+?)(?:\.git)?\/?$/;

/** Returns the address of a commit, null at an unknown forge. url: of the repository, as git takes it. */
export function commitAddress(url, commit) {
  const found = URL_FORMS.exec(url ?? "");
  const host = (found?.[1] ?? found?.[2] ?? found?.[3] ?? "").toLowerCase();
  if (!Object.hasOwn(FORGES, host)) return null;
  const path = found[4].split("/").map(encodeURIComponent).join("/");
  return `https://${host}/${path}/${FORGES[host]}/${encodeURIComponent(commit)}`;
}
