import { OwnLink } from "./link.js";
export const canShare = () => false;
export const Tabs = OwnLink;
