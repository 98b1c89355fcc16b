import QMP

/// Notes what the control socket asked for.
final class FakeQMPMachine: QMPMachine {
  let name = "desk-7"
  let version = (1, 2, 3)
  var runState = QMPRunState.running
  var calls: [String] = []
  var input: [QMPInput] = []
  var failure: QMPError?

  private func note(_ call: String) throws(QMPError) {
    if let failure { throw failure }
    calls.append(call)
  }

  func stop() throws(QMPError) { try note("stop") }
  func resume() throws(QMPError) { try note("resume") }
  func reset() throws(QMPError) { try note("reset") }
  func pressPowerButton() throws(QMPError) { try note("power button") }
  func pressSleepButton() throws(QMPError) { try note("sleep button") }
  func quit() { calls.append("quit") }

  func screendump(to path: String, format: QMPImageFormat) throws(QMPError) {
    try note("screendump \(path) \(format)")
  }

  func press(_ scanCodes: [UInt16], milliseconds: Int) throws(QMPError) {
    let codes = scanCodes.map { String($0, radix: 16) }
    try note("press \(codes.joined(separator: "+")) \(milliseconds)")
  }

  let processors = [
    QMPProcessor(index: 0, threadIdentifier: 100), QMPProcessor(index: 1, threadIdentifier: 101),
  ]
  var limits = QMPLimits()
  var drives: [QMPDrive] {
    [
      QMPDrive(
        name: "ide0-hd0", isRemovable: false, isLocked: false, isTrayOpen: false,
        medium: .init(path: "/disk.raw", size: 1 << 20, isReadOnly: false, limits: limits)),
      QMPDrive(
        name: "ide1-cd0", isRemovable: true, isLocked: true, isTrayOpen: true, medium: nil),
    ]
  }

  func limit(_ drive: String, to limits: QMPLimits) throws(QMPError) {
    try note("limit \(drive)")
    self.limits = limits
  }

  func injectNMI() throws(QMPError) { try note("nmi") }
  func eject(_ drive: String, force: Bool) throws(QMPError) { try note("eject \(drive) \(force)") }
  func setLink(_ card: String, isUp: Bool) throws(QMPError) { try note("link \(card) \(isUp)") }

  func setBalloon(_ bytes: UInt64) throws(QMPError) { try note("balloon \(bytes)") }

  func readBalloon() throws(QMPError) -> QMPBalloon {
    try note("query-balloon")
    return QMPBalloon(actual: 5 << 30, statistics: ["stat-free-memory": 7], lastUpdate: 9)
  }

  func changeMedium(of drive: String, to path: String, force: Bool) throws(QMPError) {
    try note("medium \(drive) \(path) \(force)")
  }

  var saveState = QMPSaveState()

  func save(_ request: QMPSaveRequest) throws(QMPError) {
    try note(
      "save \(request.path) \(request.identifier ?? "-") \(request.base ?? "-")"
        + " \(request.suspends)" + (request.holds ? " hold" : "")
        + (request.hasSession ? " session" : "")
        + request.overlays.map { " \($0.device)=\($0.file)" }.joined())
    saveState = QMPSaveState(path: request.path, identifier: request.identifier ?? "new")
  }

  func continueSave() throws(QMPError) { try note("continue save") }

  func stream(_ request: QMPStreamRequest) throws(QMPError) {
    try note(
      "stream \(request.identifier) \(request.device) \(request.base ?? "-") \(request.speed)")
  }

  var blockJobs: [QMPBlockJob] { [QMPBlockJob(identifier: "one", device: "virtio0", speed: 5)] }

  func cancelBlockJob(_ identifier: String) throws(QMPError) { try note("cancel \(identifier)") }

  func setBlockJobSpeed(_ identifier: String, _ speed: UInt64) throws(QMPError) {
    try note("speed \(identifier) \(speed)")
  }

  func switchDisk(_ overlay: QMPOverlay) throws(QMPError) {
    try note("switch \(overlay.device) \(overlay.file)")
  }

  func send(_ input: [QMPInput]) throws(QMPError) {
    try note("send")
    self.input += input
  }
}
