import CarrelBase
import Testing

private struct DiskError: CarrelError {
  enum Kind: Sendable { case missing }

  let kind = Kind.missing
  let context: String
  var cause: (any Error)?
}

@Suite("Errors")
struct CarrelErrorTests {
  @Test("an error without a cause says its context alone")
  func contextAlone() {
    #expect("\(DiskError(context: "disk a.raw: not found"))" == "disk a.raw: not found")
  }

  @Test("an error names what lay beneath, down to the last cause")
  func causes() {
    let last = DiskError(context: "permission denied")
    let middle = DiskError(context: "open a.raw", cause: last)
    let first = DiskError(context: "start the desktop", cause: middle)
    #expect("\(first)" == "start the desktop: open a.raw: permission denied")
  }
}
