//! The drawing of a boot as a picture (SVG 1.1): time goes to the right, a column for each step.

use std::collections::BTreeMap;

use super::draw::Step;

const WIDTH: usize = 190;
const HEIGHT: usize = 30;
const COLUMN: usize = 240;
const ROW: usize = 46;
const MARGIN: usize = 20;

/// The picture.
pub fn picture(steps: &[Step]) -> String {
    let mut rows: BTreeMap<usize, usize> = BTreeMap::new();
    let mut places: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for step in steps {
        let row = rows.entry(step.step).or_default();
        places.insert(&step.unit, (MARGIN + (step.step - 1) * COLUMN, MARGIN + *row * ROW));
        *row += 1;
    }
    let columns = rows.keys().max().copied().unwrap_or(1);
    let most = rows.values().max().copied().unwrap_or(1);
    let (width, height) = (2 * MARGIN + (columns - 1) * COLUMN + WIDTH, 2 * MARGIN + most * ROW);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for step in steps {
        let lines =
            step.after.iter().map(|other| (other, "#888888")).chain(step.circle.iter().map(|other| (other, "red")));
        for (other, colour) in lines {
            if let (Some(from), Some(to)) = (places.get(other.as_str()), places.get(step.unit.as_str())) {
                text.push_str(&line(*from, *to, colour));
            }
        }
    }
    for step in steps {
        let (x, y) = places.get(step.unit.as_str()).copied().unwrap_or_default();
        let fill = if step.container { "#cfe8cf" } else { "#f2f2f2" };
        let border = if step.early { 2 } else { 1 };
        text.push_str(&format!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"4\" fill=\"{fill}\" stroke=\"black\" stroke-width=\"{border}\"/>\n\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\"{}>{}</text>\n",
            x + WIDTH / 2,
            y + HEIGHT / 2 + 4,
            if step.unit.len() > 28 { format!(" textLength=\"{}\" lengthAdjust=\"spacingAndGlyphs\"", WIDTH - 10) } else { String::new() },
            escaped(&step.unit)
        ));
    }
    text + "</svg>\n"
}

/// From the right edge of one to the left edge of the other.
fn line((x, y): (usize, usize), (to_x, to_y): (usize, usize), colour: &str) -> String {
    let (x, y, to_y) = (x + WIDTH, y + HEIGHT / 2, to_y + HEIGHT / 2);
    let bend = (COLUMN - WIDTH) / 2;
    format!(
        "<path d=\"M{x},{y} C{},{y} {},{to_y} {to_x},{to_y}\" fill=\"none\" stroke=\"{colour}\"/>\n",
        x + bend,
        to_x.saturating_sub(bend)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
