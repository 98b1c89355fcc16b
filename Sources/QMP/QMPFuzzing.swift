/// Drives both ends of the control socket with arbitrary bytes. Shared by the fuzz
/// target and the tests.
package enum QMPFuzzing {
  /// The first byte says how the rest is cut into pieces, and whether the session has
  /// negotiated. Returns the number of replies that the server made.
  @discardableResult
  package static func run(_ bytes: [UInt8]) -> Int {
    guard let first = bytes.first else { return 0 }
    var session = QMPSession()
    var client = QMPClient()
    let machine = NoMachine()
    if first & 0x80 != 0 {
      _ = session.receive("{\"execute\":\"qmp_capabilities\"}".utf8, machine: machine)
      _ = client.receive(session.greeting(of: machine))
      client.command("query-status")
    }
    var replies = 0
    var rest = bytes.dropFirst()
    while !rest.isEmpty {
      let piece = rest.prefix(max(1, Int(first & 0x7F)))
      let output = session.receive(piece, machine: machine)
      replies += output.count { $0 == 0x0A }
      _ = client.receive(piece)
      _ = client.pendingOutput()
      rest = rest.dropFirst(piece.count)
    }
    return replies
  }

  /// Accepts everything and does nothing.
  private final class NoMachine: QMPMachine {
    let name = "none"
    let version = (0, 0, 0)
    let runState = QMPRunState.running

    func stop() throws(QMPError) {}
    func resume() throws(QMPError) {}
    func reset() throws(QMPError) {}
    func pressPowerButton() throws(QMPError) {}
    func pressSleepButton() throws(QMPError) {}
    func quit() {}
    func screendump(to path: String, format: QMPImageFormat) throws(QMPError) {}
    func press(_ scanCodes: [UInt16], milliseconds: Int) throws(QMPError) {}
    func send(_ input: [QMPInput]) throws(QMPError) {}
    let processors: [QMPProcessor] = []
    let drives = [
      QMPDrive(
        name: "virtio0", isRemovable: false, isLocked: false, isTrayOpen: false, medium: nil)
    ]
    func injectNMI() throws(QMPError) {}
    func eject(_ drive: String, force: Bool) throws(QMPError) {}
    func limit(_ drive: String, to limits: QMPLimits) throws(QMPError) {}
    func setLink(_ card: String, isUp: Bool) throws(QMPError) {}
    func setBalloon(_ bytes: UInt64) throws(QMPError) {}
    func readBalloon() throws(QMPError) -> QMPBalloon {
      QMPBalloon(actual: 1 << 20, statistics: [:], lastUpdate: 0)
    }
    func save(_ request: QMPSaveRequest) throws(QMPError) {}
    func continueSave() throws(QMPError) {}
    let saveState = QMPSaveState()
    func switchDisk(_ overlay: QMPOverlay) throws(QMPError) {}
    func stream(_ request: QMPStreamRequest) throws(QMPError) {}
    let blockJobs: [QMPBlockJob] = []
    func cancelBlockJob(_ identifier: String) throws(QMPError) {}
    func setBlockJobSpeed(_ identifier: String, _ speed: UInt64) throws(QMPError) {}
    func changeMedium(of drive: String, to path: String, force: Bool) throws(QMPError) {}
  }
}
