import Glibc

/// How often what is done over and over is done.
public enum Soak {
  /// `make soak` says how many cycles, of all kinds or of one.
  public static func cycles(_ kind: String, usually: Int) -> Int {
    for name in ["CARREL_SOAK_\(kind)_CYCLES", "CARREL_SOAK_CYCLES"] {
      if let text = getenv(name), let count = Int(String(cString: text)) { return count }
    }
    return usually
  }
}
