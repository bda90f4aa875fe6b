// The sentences that a node says about itself (docs/states.md), with the colour of each and what they
// are in the other languages. One that is not here is shown as the node said it. A test compares this
// with that document.
import type { State } from "../api/contract";
import type { Language } from "../words";

export type Tone = "green" | "amber" | "magenta" | "red" | "grey";

interface Sentence {
  state: State;
  tone: Tone;
  en: string;
  fr: string;
  ja: string;
}

const s = (state: State, tone: Tone, en: string, fr: string, ja: string): Sentence => ({ state, tone, en, fr, ja });

// {link} is the reason why there is no connection, in brackets, or nothing.
export const SENTENCES: readonly Sentence[] = [
  s("STOP", "red", "not started: start at boot is off; start this node", "pas démarré : le démarrage automatique est désactivé ; démarrez ce nœud", "未起動：自動起動が無効です。このノードを起動してください"),
  s("STOP", "red", "stopped by an operator; start this node", "arrêté par un opérateur ; démarrez ce nœud", "運用者が停止しました。このノードを起動してください"),
  s("STOP", "red", "services failed: {cause}; mend it and start this node", "échec des services : {cause} ; corrigez puis démarrez ce nœud", "サービス障害：{cause}。修復してからこのノードを起動してください"),
  s("STOP", "red", "cannot write: {cause}; mend it and restart the daemon, which reads everything back", "écriture impossible : {cause} ; corrigez puis relancez le démon, qui relira tout", "書き込み不可：{cause}。修復してからデーモンを再起動してください（全データを読み直します）"),
  s("STOP", "red", "something still runs here that must not: {cause}; end it and stop again, or reboot", "quelque chose tourne encore ici à tort : {cause} ; mettez-y fin et arrêtez de nouveau, ou redémarrez l’ordinateur", "動作してはならないものが動いています：{cause}。終了させて再度停止するか、コンピューターを再起動してください"),
  s("STOP", "red", "{peer} took over while this node could not be sure to serve; start this node to follow", "{peer} a repris le service alors que ce nœud n’était pas sûr de pouvoir servir ; démarrez ce nœud pour qu’il suive", "このノードの稼働が保証できない間に {peer} が引き継ぎました。追従させるにはこのノードを起動してください"),
  s("WAIT", "magenta", "starts: looks for {peer}", "démarre : cherche {peer}", "起動中：{peer} を探しています"),
  s("WAIT", "red", "belongs to no view yet: waits for {peer} to serve", "n’appartient encore à aucune vue : attend que {peer} soit en service", "まだどのビューにも属していません。{peer} の稼働を待っています"),
  s("WAIT", "magenta", "not uptodate: takes the log and what changed from {peer}", "pas à jour : reçoit de {peer} le journal et ce qui a changé", "最新ではありません：{peer} からログと変更分を受信中"),
  s("WAIT", "red", "not uptodate: waits for a connection to {peer}{link}", "pas à jour : attend une connexion avec {peer}{link}", "最新ではありません：{peer} との接続を待っています{link}"),
  s("WAIT", "red", "its copy is not whole: waits for {peer} to go on with the resynchronisation", "sa copie est incomplète : attend que {peer} poursuive la resynchronisation", "コピーが不完全です。{peer} による再同期の続行を待っています"),
  s("WAIT", "magenta", "waits for {peer} to have the same log before it serves", "attend que {peer} ait le même journal avant de servir", "{peer} のログが同じになるのを待ってから稼働します"),
  s("WAIT", "magenta", "{peer} is not heard: asks the witness whether this node may go on alone", "{peer} n’est plus entendu : demande au témoin si ce nœud peut continuer seul", "{peer} の応答がありません：単独で継続できるか witness に問い合わせ中"),
  s("WAIT", "red", "{peer} is not heard and the witness does not answer: waits for either, or for a forced start", "{peer} n’est plus entendu et le témoin ne répond pas : attend l’un des deux, ou un démarrage forcé", "{peer} も witness も応答しません：いずれかの応答、または強制起動を待っています"),
  s("WAIT", "red", "the witness knows that {peer} may have gone on: waits for {peer}, or for a forced start", "le témoin sait que {peer} a pu continuer : attend {peer}, ou un démarrage forcé", "witness によると {peer} が継続した可能性があります：{peer}、または強制起動を待っています"),
  s("WAIT", "red", "an operator forced {peer}: nothing is acknowledged here any more; waits for {peer}, or for a forced start of this node", "un opérateur a forcé {peer} : plus rien n’est acquitté ici ; attend {peer}, ou un démarrage forcé de ce nœud", "運用者が {peer} を強制起動したため、このノードは確認応答を返しません：{peer}、またはこのノードの強制起動を待っています"),
  s("WAIT", "red", "another witness answers than the one view {view} names: waits for {peer}, or for a forced start", "un autre témoin répond que celui nommé par la vue {view} : attend {peer}, ou un démarrage forcé", "ビュー {view} とは別の witness が応答しています：{peer}、または強制起動を待っています"),
  s("WAIT", "red", "cannot know whether {peer} went on: waits for {peer}, or for a forced start", "ne peut savoir si {peer} a continué : attend {peer}, ou un démarrage forcé", "{peer} が継続したか判断できません：{peer}、または強制起動を待っています"),
  s("WAIT", "magenta", "swaps: waits for {peer} to hand over", "permute : attend que {peer} passe la main", "切り替え中：{peer} からの引き渡しを待っています"),
  s("WAIT", "magenta", "swaps: services stopped, {peer} takes the rest of the log", "permute : services arrêtés, {peer} reçoit le reste du journal", "切り替え中：サービスを停止し、{peer} が残りのログを受信しています"),
  s("WAIT", "magenta", "finishes applying the log, mounts and starts services", "finit d’appliquer le journal, monte et démarre les services", "ログの適用を完了し、マウントしてサービスを起動しています"),
  s("WAIT", "magenta", "stops services", "arrête les services", "サービスを停止しています"),
  s("WAIT", "red", "split brain: {peer} went on alone too; nothing is acknowledged until it is decided who goes on", "split brain : {peer} a aussi continué seul ; rien n’est acquitté tant qu’il n’est pas décidé qui continue", "スプリットブレイン：{peer} も単独で継続していました。どちらが継続するか決まるまで確認応答を返しません"),
  s("PRIM", "green", "every commit is on both nodes; {peer} confirms each", "chaque commit est sur les deux nœuds ; {peer} confirme chacun", "すべてのコミットが両ノードにあり、{peer} が逐次確認しています"),
  s("PRIM", "magenta", "commits wait: {peer} is not heard{link}", "les commits attendent : {peer} n’est plus entendu{link}", "コミット待機中：{peer} の応答がありません{link}"),
  s("PRIM", "magenta", "commits wait: {peer} is heard and does not acknowledge{link}", "les commits attendent : {peer} est entendu mais n’acquitte pas{link}", "コミット待機中：{peer} は応答していますが確認応答がありません{link}"),
  s("PRIM", "magenta", "commits wait for {peer} to accept view {pend}", "les commits attendent que {peer} accepte la vue {pend}", "コミット待機中：{peer} によるビュー {pend} の承認を待っています"),
  s("SECOND", "green", "has every commit, receives the log from {peer}", "a chaque commit, reçoit le journal de {peer}", "すべてのコミットを保持し、{peer} からログを受信しています"),
  s("SECOND", "magenta", "has every commit, waits for a connection to {peer}{link}", "a chaque commit, attend une connexion avec {peer}{link}", "すべてのコミットを保持。{peer} との接続を待っています{link}"),
  s("SECOND", "red", "{peer} is not heard: takes over once that is allowed", "{peer} n’est plus entendu : reprend le service dès que c’est permis", "{peer} の応答がありません：許可され次第引き継ぎます"),
  s("SECOND", "red", "{peer} is not heard, and automatic takeover is off or in maintenance: force a start if it shall not wait", "{peer} n’est plus entendu, et la reprise automatique est désactivée ou en maintenance : forcez un démarrage si l’on ne doit pas attendre", "{peer} の応答がなく、自動引き継ぎは無効またはメンテナンス中です：待てない場合は強制起動してください"),
  s("ALONE", "amber", "serves without a second copy: {peer} is not connected{link}", "en service sans seconde copie : {peer} n’est pas connecté{link}", "第 2 コピーなしで稼働中：{peer} が接続されていません{link}"),
  s("ALONE", "amber", "serves without a second copy: no other node is configured", "en service sans seconde copie : aucun autre nœud n’est configuré", "第 2 コピーなしで稼働中：もう一方のノードが構成されていません"),
  s("ALONE", "amber", "serves without a second copy: {peer} catches up", "en service sans seconde copie : {peer} rattrape son retard", "第 2 コピーなしで稼働中：{peer} が追い付き中です"),
  s("ALONE", "amber", "serves without a second copy: {peer} has caught up and waits for the witness to answer", "en service sans seconde copie : {peer} a rattrapé son retard et attend la réponse du témoin", "第 2 コピーなしで稼働中：{peer} は追い付き、witness の応答を待っています"),
];

const escape = (text: string) => text.replace(/[.*+?^$()|[\]\\]/g, "\\$&");
// The most literal first: {link} takes what is left, also nothing.
const KNOWN = SENTENCES.map((sentence) => {
  const names: string[] = [];
  const pattern = escape(sentence.en).replace(/\{(\w+)\}/g, (_, name: string) => {
    names.push(name);
    return name === "link" ? "( \\(.*\\))?" : name === "peer" ? "(node[12])" : "(.+)";
  });
  return { sentence, names, matches: new RegExp(`^${pattern}$`, "s") };
});

const USUAL: Record<State, Tone> = { PRIM: "green", SECOND: "green", ALONE: "amber", STOP: "red", WAIT: "magenta" };

export interface Said {
  text: string;
  tone: Tone;
}

/** A node's sentence in that language, and its colour. */
export function said(state: State, sentence: string, language: Language): Said {
  for (const { sentence: known, names, matches } of KNOWN) {
    if (known.state !== state) continue;
    const found = matches.exec(sentence);
    if (!found) continue;
    const text = known[language].replace(/\{(\w+)\}/g, (_, name: string) => found[names.indexOf(name) + 1] ?? "");
    return { text, tone: known.tone };
  }
  return { text: sentence, tone: USUAL[state] };
}

/** The colour of a state whose sentence nobody knows. */
export function usualTone(state: State | null | undefined): Tone {
  return state ? USUAL[state] : "grey";
}
