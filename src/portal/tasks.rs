//! Tasks (`/tasks`): orders to slaves, how they stand, and what slaves brought. On a master; a slave says who is.

use crate::admin::Action;
use crate::admin::Order;
use crate::admin::Outcome;
use crate::admin::Refused;
use crate::admin::RefusedKind;
use crate::admin::Task;
use crate::admin::TaskAction;
use crate::admin::TaskNode;
use crate::admin::TaskProgress;
use crate::base::clock::Wall;
use crate::base::words::bytes;
use crate::portal::web;
use crate::portal::web::Cx;
use crate::portal::web::Fields;
use crate::portal::web::Shell;
use crate::portal::words;
use crate::portal::words::Moment;
use askama::Template;
use axum::Extension;
use axum::extract::Query;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use data_encoding::BASE64;
use std::collections::BTreeMap;

/// Tasks on a page.
const SHOWN: u32 = 50;
/// How long an order may wait, as the form offers it: seconds, and words.
const LIVES: [(u64, &str); 5] =
    [(600, "10 minutes"), (3_600, "an hour"), (12 * 3_600, "12 hours"), (86_400, "a day"), (7 * 86_400, "a week")];

#[derive(Template)]
#[template(path = "tasks.html")]
struct TasksPage {
    shell: Shell,
    rows: Rows,
    /// Where the rows come from anew.
    live: String,
    orders: Vec<(&'static str, &'static str, bool)>,
    lives: Vec<(u64, &'static str, bool)>,
    on: String,
    error: String,
}

#[derive(Template)]
#[template(path = "tasks_rows.html")]
struct Rows {
    tasks: Vec<TaskView>,
    checked: Moment,
    /// The last of them, if there are older ones.
    older: Option<String>,
}

#[derive(Template)]
#[template(path = "task.html")]
struct TaskPage {
    shell: Shell,
    task: TaskView,
    rows: TaskRows,
}

#[derive(Template)]
#[template(path = "task_rows.html")]
struct TaskRows {
    csrf: String,
    id: String,
    order: &'static str,
    open: bool,
    stands: Vec<(String, &'static str)>,
    nodes: Vec<NodeView>,
}

struct TaskView {
    id: String,
    order: &'static str,
    on: String,
    by: String,
    ordered: Moment,
    expires: Moment,
    cancelled: Option<(Moment, String)>,
    open: bool,
    /// Words and tone.
    stands: Vec<(String, &'static str)>,
}

struct NodeView {
    name: String,
    progress: &'static str,
    tone: &'static str,
    since: Moment,
    words: String,
    output: String,
    output_bytes: String,
}

type Asked = Query<BTreeMap<String, String>>;

/// GET /tasks, with `on=NODE` for one that is to be chosen, `before=ID` for older ones.
pub async fn page(Extension(cx): Extension<Cx>, query: Asked) -> Response {
    let on = query.get("on").cloned().unwrap_or_else(|| "all".to_string());
    list(&cx, (on, String::new(), 0), before(&query), None).await
}

/// GET /tasks/rows: what the page polls.
pub async fn fragment(Extension(cx): Extension<Cx>, query: Asked) -> Response {
    match rows(&cx, before(&query)).await {
        Ok(rows) => web::render(StatusCode::OK, &rows),
        Err(refused) => cx.problem("Tasks", "tasks", refused).await,
    }
}

/// POST /tasks: an order.
pub async fn order(Extension(cx): Extension<Cx>, fields: Fields) -> Response {
    if !cx.is_genuine(&fields) {
        return cx.stale("Tasks", "tasks").await;
    }
    let life_s = fields.get("life").parse().unwrap_or(0);
    let said = (fields.get("on").trim().to_string(), fields.get("order").to_string(), life_s);
    let Some(order) = Order::named(fields.get("order")) else {
        return list(&cx, said, None, Some(Refused::invalid("choose what is to be done"))).await;
    };
    let asked = TaskAction::Order { order, on: said.0.clone(), life_s: (life_s > 0).then_some(life_s) };
    match task(cx.ask(Action::Task(asked)).await) {
        Ok(task) => {
            let to = format!("/tasks/task?id={}", words::encoded(&task.id));
            cx.done(format!("Ordered: {} on {}.", task.order, task.on), &to)
        }
        Err(refused) => list(&cx, said, None, Some(refused)).await,
    }
}

/// GET /tasks/task?id=ID
pub async fn one(Extension(cx): Extension<Cx>, query: Asked) -> Response {
    match show(&cx, &query).await {
        Ok(task) => {
            let shell = cx.shell(&format!("Task {}", task.id), "tasks").await;
            let now = Wall::now();
            let rows = task_rows(&shell.csrf, &task, now);
            web::render(StatusCode::OK, &TaskPage { shell, rows, task: view(task, now) })
        }
        Err(refused) => cx.problem("Task", "tasks", refused).await,
    }
}

/// GET /tasks/task/rows?id=ID: what the page polls.
pub async fn one_fragment(Extension(cx): Extension<Cx>, query: Asked) -> Response {
    match show(&cx, &query).await {
        Ok(task) => web::render(StatusCode::OK, &task_rows(&cx.visit.csrf, &task, Wall::now())),
        Err(refused) => cx.problem("Task", "tasks", refused).await,
    }
}

/// POST /tasks/cancel
pub async fn cancel(Extension(cx): Extension<Cx>, fields: Fields) -> Response {
    if !cx.is_genuine(&fields) {
        return cx.stale("Tasks", "tasks").await;
    }
    let id = fields.get("id").to_string();
    match task(cx.ask(Action::Task(TaskAction::Cancel { id })).await) {
        Ok(task) => {
            let to = format!("/tasks/task?id={}", words::encoded(&task.id));
            cx.done("Cancelled: no slave begins it any more.".to_string(), &to)
        }
        Err(refused) => cx.problem("Task", "tasks", refused).await,
    }
}

/// POST /tasks/output: a form, since what is taken away is noted, and another site must not make a browser take it.
pub async fn output(Extension(cx): Extension<Cx>, fields: Fields) -> Response {
    if !cx.is_genuine(&fields) {
        return cx.stale("Tasks", "tasks").await;
    }
    let (id, node) = (fields.get("id").to_string(), fields.get("node").to_string());
    let (file_name, content) = match cx.ask(Action::Task(TaskAction::Output { id, node })).await {
        Ok(Outcome::TaskOutput { file_name, content }) => (file_name, content),
        Ok(other) => return cx.problem("Task", "tasks", web::unexpected("Task", &other)).await,
        Err(refused) => return cx.problem("Task", "tasks", refused).await,
    };
    let named = HeaderValue::from_str(&format!("attachment; filename=\"{file_name}\""));
    match (BASE64.decode(content.as_bytes()), named) {
        (Ok(content), Ok(named)) => {
            let kind = if file_name.ends_with(".json") { "application/json" } else { "application/gzip" };
            let headers =
                [(header::CONTENT_TYPE, HeaderValue::from_static(kind)), (header::CONTENT_DISPOSITION, named)];
            (StatusCode::OK, headers, content).into_response()
        }
        _ => cx.problem("Task", "tasks", Refused::failed("what the slave brought cannot be read")).await,
    }
}

/// The page with what was said in its form: nodes, order, life.
async fn list(cx: &Cx, said: (String, String, u64), before: Option<String>, refused: Option<Refused>) -> Response {
    let live =
        before.as_ref().map_or("/tasks/rows".to_string(), |id| format!("/tasks/rows?before={}", words::encoded(id)));
    let rows = match rows(cx, before).await {
        Ok(rows) => rows,
        Err(refused) => return cx.problem("Tasks", "tasks", refused).await,
    };
    let (on, order, life_s) = said;
    let life_s = if life_s == 0 { LIVES[1].0 } else { life_s };
    let status = refused.as_ref().map_or(StatusCode::OK, web::status_of);
    let page = TasksPage {
        shell: cx.shell("Tasks", "tasks").await,
        rows,
        live,
        orders: Order::ALL.iter().map(|one| (one.name(), about(*one), one.name() == order)).collect(),
        lives: LIVES.iter().map(|(seconds, words)| (*seconds, *words, *seconds == life_s)).collect(),
        on,
        error: refused.map(|refused| refused.words).unwrap_or_default(),
    };
    web::render(status, &page)
}

/// The task behind which a page begins.
fn before(query: &Asked) -> Option<String> {
    query.get("before").cloned()
}

async fn rows(cx: &Cx, before: Option<String>) -> Result<Rows, Refused> {
    match cx.ask(Action::Task(TaskAction::List { limit: SHOWN, before })).await? {
        Outcome::Tasks { tasks, more } => {
            let now = Wall::now();
            let older = tasks.last().filter(|_| more).map(|task| task.id.clone());
            let tasks = tasks.into_iter().map(|task| view(task, now)).collect();
            Ok(Rows { tasks, older, checked: words::moment(now.0, now) })
        }
        other => Err(web::unexpected("Tasks", &other)),
    }
}

async fn show(cx: &Cx, query: &Asked) -> Result<Task, Refused> {
    let id = query.get("id").cloned().ok_or_else(|| Refused::new(RefusedKind::NotFound, "no task is named"))?;
    task(cx.ask(Action::Task(TaskAction::Show { id })).await)
}

fn task(answer: Result<Outcome, Refused>) -> Result<Task, Refused> {
    match answer? {
        Outcome::Task(task) => Ok(*task),
        other => Err(web::unexpected("Task", &other)),
    }
}

fn view(task: Task, now: Wall) -> TaskView {
    TaskView {
        order: task.order.name(),
        open: task.is_open(),
        stands: counts(&task),
        ordered: words::moment(task.created_us, now),
        expires: words::moment(task.expires_us, now),
        cancelled: (task.cancelled_us != 0).then(|| (words::moment(task.cancelled_us, now), task.cancelled_by)),
        id: task.id,
        on: task.on,
        by: task.by,
    }
}

fn task_rows(csrf: &str, task: &Task, now: Wall) -> TaskRows {
    TaskRows {
        csrf: csrf.to_string(),
        id: task.id.clone(),
        order: task.order.name(),
        open: task.is_open(),
        stands: counts(task),
        nodes: task.nodes.iter().map(|node| node_view(node, now)).collect(),
    }
}

fn node_view(node: &TaskNode, now: Wall) -> NodeView {
    NodeView {
        name: node.node.clone(),
        progress: node.progress.name(),
        tone: tone(node.progress),
        since: words::moment(node.at_us, now),
        words: match node.progress {
            TaskProgress::Queued if node.words.is_empty() => "waits until the slave comes for it".to_string(),
            _ => node.words.clone(),
        },
        output: node.output.clone(),
        output_bytes: bytes(node.output_bytes),
    }
}

/// `3 done`, `1 queued`, each with its tone.
fn counts(task: &Task) -> Vec<(String, &'static str)> {
    task.counts().into_iter().map(|(progress, count)| (format!("{count} {progress}"), tone(progress))).collect()
}

fn tone(progress: TaskProgress) -> &'static str {
    match progress {
        TaskProgress::Done => "good",
        TaskProgress::Queued | TaskProgress::Sent | TaskProgress::Started => "info",
        TaskProgress::Cancelled => "",
        TaskProgress::Unknown | TaskProgress::Expired => "warn",
        TaskProgress::Failed => "bad",
    }
}

/// What the form says beside the order.
fn about(order: Order) -> &'static str {
    match order {
        Order::Restart => "restart; what is under way goes on",
        Order::Reload => "read startup.ini again",
        Order::Drain => "leave service without failing a request",
        Order::Undrain => "come back into service",
        Order::FlushDns => "ask the name servers anew",
        Order::FlushPools => "close idle connections to origins and parents",
        Order::RotateLogs => "begin another file of extended.log",
        Order::Verify => "walk the checklist",
        Order::Diagnostics => "bring what a support desk asks for",
        Order::Backup => "keep and bring startup params and policy (no keys, no records)",
    }
}
