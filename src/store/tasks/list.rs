//! Tasks a page at a time: a master keeps a hundred thousand rows of slaves, and nobody reads them all at once.

use super::Result;
use super::Task;
use super::TaskStore;
use super::task;
use crate::limits::TASK_ROWS_LISTED_MAX;
use crate::limits::TASKS_LISTED_MAX;
use rusqlite::params;

impl TaskStore {
    /// The newest tasks, or the newest before one, newest first: at most `limit`, and no more than a page holds. Whether there are older ones
    /// comes with them.
    pub fn list(&self, limit: usize, before: Option<i64>) -> Result<(Vec<Task>, bool)> {
        self.look("listing tasks", |all| {
            let limit = limit.clamp(1, TASKS_LISTED_MAX);
            let numbers: Vec<i64> = all
                .prepare_cached("SELECT number FROM task WHERE number < ?1 ORDER BY number DESC LIMIT ?2")?
                .query_map(params![before.unwrap_or(i64::MAX), limit as i64 + 1], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            let (mut tasks, mut rows) = (Vec::new(), 0);
            for number in &numbers[..numbers.len().min(limit)] {
                let count = "SELECT count(*) FROM target WHERE number = ?1";
                rows += all.prepare_cached(count)?.query_row([number], |row| row.get::<_, i64>(0))? as usize;
                if rows > TASK_ROWS_LISTED_MAX && !tasks.is_empty() {
                    break;
                }
                tasks.extend(task(all, *number)?);
            }
            let more = tasks.len() < numbers.len();
            Ok((tasks, more))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_page_and_the_pages_are_all_tasks_each_once_however_many_are_stored() {
        let dir = tempfile::tempdir().unwrap();
        let store = TaskStore::open(dir.path()).unwrap();
        // More than are kept, as from a version that keeps more; of the newest and oldest every fifth is of a whole cluster, and a page of a
        // hundred would have ten thousand rows.
        store
            .connection()
            .execute_batch(
                "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000)
                 INSERT INTO task SELECT n, '00000000', 'drain', 'ann', 'all', n, n, 0, '' FROM n;
                 WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000)
                 INSERT INTO target SELECT n, 's1', 'done', n, '' FROM n;
                 WITH RECURSIVE s(s) AS (SELECT 2 UNION ALL SELECT s + 1 FROM s WHERE s < 500)
                 INSERT INTO target SELECT number, 's' || s, 'done', 0, '' FROM task, s WHERE number % 5 = 0 AND (number > 19000 OR number <= 100);",
            )
            .unwrap();
        let (mut listed, mut before) = (Vec::new(), None);
        loop {
            let (page, more) = store.list(usize::MAX, before).unwrap();
            let rows: usize = page.iter().map(|task| task.nodes.len()).sum();
            assert!(
                (1..=TASKS_LISTED_MAX).contains(&page.len()) && rows <= TASK_ROWS_LISTED_MAX,
                "{} {rows}",
                page.len()
            );
            let numbers = page.iter().map(|task| task.id.split('-').next().unwrap().parse::<i64>().unwrap());
            listed.extend(numbers);
            before = listed.last().copied();
            if !more {
                break;
            }
        }
        assert!(listed.iter().copied().eq((1..=20_000).rev()));
        let (page, more) = store.list(2, Some(3)).unwrap();
        assert!(page.len() == 2 && page[0].id == "2-00000000" && !more);
        assert!(store.list(2, Some(1)).unwrap() == (Vec::new(), false));
        assert_eq!(store.list(3, None).unwrap().0.len(), 3);
    }
}
