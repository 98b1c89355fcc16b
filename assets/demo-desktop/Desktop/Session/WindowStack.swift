/// The windows from back to front, and which one has the focus.
final class WindowStack {
  private(set) var windows: [Window] = []

  func add(_ window: Window) { windows.append(window) }

  var front: Window? { windows.last(where: { $0.isVisible }) }

  func window(at position: Point) -> Window? {
    windows.last(where: { $0.isVisible && $0.frame.contains(position) })
  }

  /// Brings a window to the front. Returns what must be painted again.
  func raise(_ window: Window) -> Rectangle {
    let wasFront = front === window
    windows.removeAll { $0 === window }
    windows.append(window)
    let shown = !window.isVisible
    window.isVisible = true
    return updateFocus().union(wasFront && !shown ? .empty : window.extent)
  }

  func hide(_ window: Window) -> Rectangle {
    window.isVisible = false
    return window.extent.union(updateFocus())
  }

  /// The front window has the focus. Returns what looks different for it.
  func updateFocus() -> Rectangle {
    let focused = front
    var changed = Rectangle.empty
    for window in windows where window.isFocused != (window === focused) {
      window.isFocused = window === focused
      if window.isVisible { changed = changed.union(window.extent) }
    }
    return changed
  }

  /// The topmost window that hides everything behind it within `area`.
  func firstToPaint(_ area: Rectangle) -> Int? {
    windows.lastIndex(where: { $0.opaque.contains(area) })
  }
}
