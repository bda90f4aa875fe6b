// The pages of Control, in the order of their tabs. Where one is stands in the address: #/control/module/2
// is the module log of node2, so it can be bookmarked and sent to a colleague.
export const PAGES = ["resources", "charts", "module", "application", "commands", "asked", "receipts", "branches", "information", "settings"] as const;
export type Page = (typeof PAGES)[number];
