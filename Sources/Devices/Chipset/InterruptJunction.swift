import DeviceModel

/// Several level-triggered sources on one wire: the output is asserted while any of
/// them is.
package final class InterruptJunction {
  private final class Input: InterruptLine {
    let junction: InterruptJunction
    var asserted = false

    init(_ junction: InterruptJunction) { self.junction = junction }

    func setLevel(_ asserted: Bool) {
      guard asserted != self.asserted else { return }
      self.asserted = asserted
      junction.count += asserted ? 1 : -1
    }
  }

  private let output: any InterruptLine
  private var count = 0 {
    didSet {
      if (oldValue == 0) != (count == 0) { output.setLevel(count > 0) }
    }
  }

  package init(output: any InterruptLine) { self.output = output }

  /// A new source, released at first.
  package func makeInput() -> any InterruptLine { Input(self) }
}
