// Every page, by its address.
export const ROUTES = [
  "control/resources", "control/charts", "control/module", "control/application", "control/commands", "control/asked",
  "control/receipts", "control/branches", "control/information", "control/settings", "monitoring",
];
